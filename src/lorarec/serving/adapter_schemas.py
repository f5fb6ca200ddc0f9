"""JSON schemas of requests and responses about adapters."""

from typing import Annotated, Literal

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lorarec.serving.engine import AdapterKind
from lorarec.serving.experiment_schemas import PreviousVersion
from lorarec.serving.fusion import RecommenderKind
from lorarec.serving.schema_parts import NextCursor, example
from lorarec.serving.schemas import MAX_RESULTS, RequestBody, Text, refuse_nul

AdapterLimit = Annotated[
    int | None,
    Query(ge=1, le=MAX_RESULTS, description="Maximum number of adapters; all by default.", examples=[20]),
]
AliasPath = Annotated[
    str,
    Path(min_length=1, max_length=500, description="Further name of an adapter.", examples=["prod"]),
    AfterValidator(refuse_nul),
]
AdapterPath = Annotated[str, Path(description="Name of a loaded adapter.", examples=["shop"])]

_ADAPTER = {
    "name": "general",
    "kind": "adapter",
    "fingerprint": "7d0e5c1f",
    "previous": None,
    "rank": 16,
    "readout": "verdict",
    "in_folder": True,
}


class LoadAdapterRequest(RequestBody):
    """An adapter to load."""

    name: Annotated[Text, Field(description="Name of an adapter that GET /v1/adapters lists; no path or hub id.")]

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "general"}]})


class AliasRequest(RequestBody):
    """A further name for a loaded adapter."""

    alias: Annotated[Text, Field(description="The further name, which is not that of an adapter.")]
    adapter: Annotated[Text, Field(description="Name of the loaded adapter that it stands for.")]

    model_config = ConfigDict(json_schema_extra={"examples": [{"alias": "prod", "adapter": "general"}]})


class AdapterInfo(BaseModel):
    """A loaded adapter."""

    name: Annotated[str, Field(description="Name of the adapter.")]
    kind: Annotated[
        AdapterKind,
        Field(
            description="`adapter`, or `personal` for a folder of `lorarec personal train-router`, which is mixed for "
            "each user."
        ),
    ]
    fingerprint: Annotated[str, Field(description="Hash of the adapter's files when it was loaded.")]
    previous: PreviousVersion
    rank: Annotated[int, Field(description="Largest rank of the adapter's layers.")]
    readout: Annotated[str, Field(description="How candidates are scored: `verdict` or `likelihood`.")]
    in_folder: Annotated[bool, Field(description="Whether the adapters folder still lists the adapter.")]

    model_config = example(_ADAPTER)


class LayerWeights(BaseModel):
    """Weights of the adapters that were mixed in one layer."""

    layer: Annotated[str, Field(description="Name of the adapted layer.")]
    weights: Annotated[dict[str, float], Field(description="Weight of each mixed adapter.")]


class AdapterDetails(AdapterInfo):
    """A loaded adapter and the weights of the adapters it was mixed from, layer by layer.

    An adapter that was not mixed has the weight 1 for itself. The weights of a personal adapter are the mean over
    users, which users without a stored history get.
    """

    user_id: Annotated[
        str | None, Field(description="Id of the user that the adapter was exported for; null for other adapters.")
    ]
    layers: Annotated[list[LayerWeights], Field(description="Weights by adapted layer.")]

    model_config = example(
        _ADAPTER
        | {
            "user_id": None,
            "layers": [{"layer": "model.layers.0.self_attn.q_proj", "weights": {"general": 1.0}}],
        }
    )


class FusionInfo(BaseModel):
    """The fusion, which answers requests that name no adapter."""

    recommenders: Annotated[
        dict[str, RecommenderKind], Field(description="Kind of each fused recommender by its name.")
    ]
    new_item_prior: Annotated[
        float | Literal["auto"],
        Field(description="Probability that the target item is a new one; `auto` is their share of the catalogue."),
    ]


class AdaptersResponse(BaseModel):
    """A page of the adapters that are loaded or can be loaded, and the fusion."""

    loaded: Annotated[list[AdapterInfo], Field(description="Adapters in memory.")]
    available: Annotated[list[str], Field(description="Names of adapters that can be loaded.")]
    kinds: Annotated[dict[str, AdapterKind], Field(description="Kind of each adapter that can be loaded.")]
    unavailable: Annotated[
        dict[str, str],
        Field(description="Why adapters that a replica has loaded by a request are not loaded in this one, by name."),
    ]
    fusion: Annotated[FusionInfo | None, Field(description="The fusion; null if the service has none.")]
    aliases: Annotated[dict[str, str], Field(description="Adapter that each alias stands for, on every page.")]
    default: Annotated[
        str | None, Field(description="Name or alias of the adapter of requests that name none; null if there is none.")
    ]
    total: Annotated[int, Field(description="Number of adapters that are loaded or can be loaded.")]
    next: NextCursor

    model_config = example(
        {
            "loaded": [_ADAPTER],
            "available": ["general", "shop"],
            "kinds": {"general": "adapter", "shop": "adapter"},
            "unavailable": {"games": "it is being loaded"},
            "fusion": {
                "recommenders": {"shop": "language model", "sasrec": "next-item model"},
                "new_item_prior": "auto",
            },
            "aliases": {"prod": "shop"},
            "default": None,
            "total": 2,
            "next": None,
        }
    )


class AliasResponse(BaseModel):
    """A further name of an adapter."""

    alias: Annotated[str, Field(description="The further name.")]
    adapter: Annotated[str, Field(description="Name of the adapter that it stands for.")]

    model_config = example({"alias": "prod", "adapter": "general"})
