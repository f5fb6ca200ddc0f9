"""JSON schemas of responses and their fields."""

from typing import Annotated

from pydantic import BaseModel, Field

from lorarec.serving.experiment_schemas import AdapterVersions, VariantName
from lorarec.serving.schema_parts import NextCursor, Total, example

_RANKED = {
    "item_id": "i1",
    "title": "red lamp",
    "score": 0.7,
    "log_odds": 0.7,
    "log_likelihood": None,
    "log_prior": 0.0,
    "probability": 0.62,
    "candidate": 0,
}


class RankedItem(BaseModel):
    """An item with its score."""

    item_id: Annotated[str | None, Field(description="Id of the item; null if the request gave its title.")]
    title: Annotated[str, Field(description="Title of the item.")]
    score: Annotated[
        float,
        Field(
            description="Score that orders the items: `log_odds` or `log_likelihood` plus `log_prior`, which is the "
            "logarithm of a posterior up to a constant; with a fusion, the logarithm of `probability`. Scores are "
            "comparable within one response only."
        ),
    ]
    log_odds: Annotated[
        float | None,
        Field(description="Log-odds of yes against no with the readout `verdict`; null with `likelihood` or a fusion."),
    ]
    log_likelihood: Annotated[
        float | None,
        Field(
            description="Log-probability of the title with the readout `likelihood`; null with `verdict` or a fusion."
        ),
    ]
    log_prior: Annotated[
        float | None,
        Field(
            description="Logarithm of the prior up to a constant: in recommendations, minus the logarithm of the rank "
            "that the index gave the item, from 1; 0 if the request gives the candidates; null with a fusion."
        ),
    ]
    probability: Annotated[
        float, Field(description="Posterior probability among the candidates: the softmax of their scores.")
    ]
    parts: Annotated[
        dict[str, float],
        Field(
            description="What each recommender of the fusion adds to the score, less the mean over the candidates, by "
            "name; `index` is the part of the index's order, `new item` that of being new. The parts add up to the "
            "score plus a constant of the response. Empty if adapters answer.",
            examples=[{"shop": 0.9, "sasrec": 1.2, "popularity": -0.1, "new item": 0.0}],
        ),
    ] = {}
    boost: Annotated[
        float,
        Field(
            description="Sum of the boosts of the request for this item. Items are ordered by `score` plus `boost`, "
            "which is not a part of `score`."
        ),
    ] = 0.0
    candidate: Annotated[int, Field(description="Index of the item among the candidates, from 0.")]


class UserWeights(BaseModel):
    """Weights of the adapters that a personal adapter mixes for a user."""

    routed: Annotated[
        bool, Field(description="Whether the weights are the user's own; otherwise they are the mean over users.")
    ]
    parts: Annotated[list[str], Field(description="Names of the mixed adapters.")]
    layers: Annotated[
        dict[str, list[float]], Field(description="Weight of each adapter of `parts`, by name of the adapted layer.")
    ]


MixtureWeights = Annotated[
    dict[str, float], Field(description="Weight of each adapter that the items were scored with.")
]
PersonalWeights = Annotated[
    dict[str, UserWeights], Field(description="Weights inside each personal adapter of the mixture.")
]


ByFusion = Annotated[
    bool, Field(description="Whether the fusion answers; then `mixture` is empty and items have `parts`.")
]


class RankResponse(BaseModel):
    """Ranked items."""

    ranking: Annotated[list[RankedItem], Field(description="Items, best first.")]
    fusion: ByFusion = False
    mixture: MixtureWeights
    versions: AdapterVersions
    variant: VariantName = None
    personal: PersonalWeights
    tokens: Annotated[
        int, Field(description="Number of tokens that the language model read: the prompt and all candidates.")
    ]

    model_config = example(
        {
            "ranking": [_RANKED],
            "fusion": False,
            "mixture": {"general": 0.3, "shop": 0.7},
            "versions": {"general": "7d0e5c1f", "shop": "0b9a6f2d"},
            "variant": "mixed",
            "personal": {},
            "tokens": 64,
        }
    )


class ItemInfluence(BaseModel):
    """Effect of an item of the history on the explained candidate."""

    item_id: Annotated[str | None, Field(description="Id of the item; null if the request gave its title.")]
    title: Annotated[str, Field(description="Title of the item.")]
    score: Annotated[float, Field(description="Decrease of the candidate's score if the item is left out.")]
    probability: Annotated[float, Field(description="Decrease of the candidate's probability if the item is left out.")]


class ExplainResponse(BaseModel):
    """Effects of the items of a history on the score of a candidate."""

    candidate: Annotated[RankedItem, Field(description="The explained candidate.")]
    history: Annotated[list[ItemInfluence], Field(description="Items of the history in the prompt, oldest first.")]
    evidence: Annotated[
        dict[str, str],
        Field(
            description="Words in the prompts of each adapter that say how often other users chose the candidate "
            "together with the history, by name of the adapter; empty text if rarely. Adapters whose prompts have no "
            "evidence are left out.",
            examples=[{"shop": "often"}],
        ),
    ]
    fusion: ByFusion = False
    mixture: MixtureWeights
    versions: AdapterVersions
    variant: VariantName = None
    personal: PersonalWeights

    model_config = example(
        {
            "candidate": _RANKED,
            "history": [{"item_id": "i7", "title": "red table", "score": 0.4, "probability": 0.1}],
            "evidence": {"general": "often"},
            "fusion": False,
            "mixture": {"general": 1.0},
            "versions": {"general": "7d0e5c1f"},
            "variant": None,
            "personal": {},
        }
    )


class EventsResponse(BaseModel):
    """Numbers of events that were stored or already known."""

    stored: Annotated[int, Field(description="Number of new events.")]
    known: Annotated[int, Field(description="Number of events whose `event_id` was stored before.")]

    model_config = example({"stored": 1, "known": 0})


class CatalogueItem(BaseModel):
    """An item of the catalogue."""

    item_id: Annotated[str, Field(description="Id of the item.")]
    title: Annotated[str, Field(description="Title of the item.")]


class ItemsResponse(BaseModel):
    """Items of the catalogue."""

    items: Annotated[list[CatalogueItem], Field(description="Items in the order that the path describes.")]

    model_config = example({"items": [{"item_id": "i1", "title": "red lamp"}]})


class ItemsPage(ItemsResponse):
    """A page of the items of the catalogue."""

    total: Total
    next: NextCursor

    model_config = example({"items": [{"item_id": "i1", "title": "red lamp"}], "total": 1, "next": None})


class UsersResponse(BaseModel):
    """A page of the users of the dataset."""

    users: Annotated[list[str], Field(description="User ids, best match first.")]
    total: Total
    next: NextCursor

    model_config = example({"users": ["u42"], "total": 1, "next": None})


class LivenessResponse(BaseModel):
    """Whether the threads of the service work."""

    status: Annotated[str, Field(description="`ok`, or `stuck` if the service must be restarted.")]

    model_config = example({"status": "ok"})


class HealthResponse(BaseModel):
    """Whether the service can answer every request."""

    status: Annotated[
        str,
        Field(
            description="`ok`; `degraded` if the database is not usable or an announced adapter is being loaded; "
            "`stuck` if a thread hangs or the model fails, and the service must be restarted."
        ),
    ]
    database: Annotated[
        str,
        Field(description="`ok`; `unreachable`; or `unusable`: locked, full, read-only, damaged or without tables."),
    ]
    adapters: Annotated[int, Field(description="Number of loaded adapters.")]
    unavailable: Annotated[
        int, Field(description="Number of adapters that are announced and not loaded in this replica.")
    ]
    fusion: Annotated[bool, Field(description="Whether a fusion answers requests that name no adapter.")]

    model_config = example({"status": "ok", "database": "ok", "adapters": 2, "unavailable": 0, "fusion": False})


class FieldError(BaseModel):
    """What is wrong with one field of a request."""

    field: Annotated[str, Field(description="Path of the field, as in `candidates.3`.")]
    message: Annotated[str, Field(description="One line that says what is wrong and how to correct it.")]


class ProblemDetails(BaseModel):
    """Response to a request that cannot be answered, as RFC 9457 defines it."""

    type: Annotated[str, Field(description="`about:blank`: the status says what kind of problem it is.")]
    title: Annotated[str, Field(description="Name of the status.")]
    status: Annotated[int, Field(description="HTTP status code.")]
    detail: Annotated[str, Field(description="One line that says what is wrong and how to correct it.")]
    request_id: Annotated[str | None, Field(description="Id of the request, as in the header `X-Request-ID`.")]
    errors: Annotated[list[FieldError], Field(description="What is wrong with fields of the request, the first few.")]

    model_config = example(
        {
            "type": "about:blank",
            "title": "Unprocessable Content",
            "status": 422,
            "detail": "candidates.1: item 'i99' is not in the catalogue: give an id of it",
            "request_id": "checkout-7f3a",
            "errors": [
                {"field": "candidates.1", "message": "item 'i99' is not in the catalogue: give an id of it"},
            ],
        }
    )
