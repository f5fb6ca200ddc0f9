"""JSON schemas of requests and responses: their fields, limits and examples."""

from typing import Annotated, Any

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lorarec.serving.engine import AdapterKind

MAX_HISTORY = 1000
MAX_CANDIDATES = 1000
MAX_EXPLAINED = 100
MAX_TOP = 100
MAX_FILTER_ITEMS = 10_000
MAX_EVENTS = 1000
MAX_MIXED_ADAPTERS = 16
MAX_RESULTS = 100


def _refuse_nul(text: str) -> str:
    """Refuse the character NUL, which PostgreSQL cannot store."""
    if "\0" in text:
        raise ValueError("text must not hold the character NUL")
    return text


Text = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_refuse_nul)]
Weight = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
SearchQuery = Annotated[
    str,
    Query(
        max_length=100,
        description="Words or parts of words, all of which must occur in a result.",
        examples=["toy story"],
    ),
    AfterValidator(_refuse_nul),
]
Limit = Annotated[int, Query(ge=1, le=MAX_RESULTS, description="Maximum number of results.")]
UserId = Annotated[
    str,
    Query(min_length=1, max_length=500, description="Id of the user.", examples=["u42"]),
    AfterValidator(_refuse_nul),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ItemTitle(_Request):
    """An item that is not in the catalogue, given by its title."""

    title: Annotated[Text, Field(description="Title of the item.")]


Item = Text | ItemTitle
AdapterChoice = Annotated[
    Text | Annotated[dict[Text, Weight], Field(max_length=MAX_MIXED_ADAPTERS)] | None,
    Field(
        description="Name of a loaded adapter, or an object from names to weights that sum to 1; {} is the backbone "
        "without adapters. The field is optional if exactly one adapter is loaded."
    ),
]


class _HistoryRequest(_Request):
    user_id: Annotated[
        Text | None, Field(description="Id of the user whose stored history is read, in place of `history`.")
    ] = None
    history: Annotated[
        list[Item] | None,
        Field(max_length=MAX_HISTORY, description="Item ids of the catalogue or titles, oldest first."),
    ] = None
    adapter: AdapterChoice = None

    @model_validator(mode="after")
    def _require_one_history(self) -> Any:
        if (self.user_id is None) == (self.history is None):
            raise ValueError("give either user_id or history")
        return self


class RankRequest(_HistoryRequest):
    """Candidates to rank for a user or a history."""

    candidates: Annotated[
        list[Item],
        Field(
            min_length=1, max_length=MAX_CANDIDATES, description="Item ids of the catalogue or titles, in any order."
        ),
    ]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "u42", "candidates": ["i1", "i2", {"title": "A title nobody has seen yet"}]},
                {
                    "history": ["i7", {"title": "Heat"}],
                    "candidates": ["i1", "i2"],
                    "adapter": {"general": 0.3, "specific": 0.7},
                },
            ]
        }
    )


class RecommendRequest(_HistoryRequest):
    """A user or a history to recommend items of the catalogue for."""

    top: Annotated[int, Field(ge=1, le=MAX_TOP, description="Number of items to recommend.")] = 10
    allow: Annotated[
        list[Text] | None,
        Field(max_length=MAX_FILTER_ITEMS, description="Ids of the only items that may be recommended."),
    ] = None
    deny: Annotated[
        list[Text],
        Field(
            max_length=MAX_FILTER_ITEMS,
            description="Ids of items that must not be recommended, for example because they are out of stock.",
        ),
    ] = []

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "u42", "top": 5, "adapter": {"general": 0.3, "specific": 0.7}, "deny": ["i9"]}]
        }
    )


class ExplainRequest(RankRequest):
    """A candidate whose score is to be explained, and the candidates it is ranked among."""

    candidates: Annotated[
        list[Item],
        Field(min_length=1, max_length=MAX_EXPLAINED, description="Item ids of the catalogue or titles, in any order."),
    ]
    candidate: Annotated[
        int, Field(ge=0, lt=MAX_EXPLAINED, description="Index of the explained candidate in `candidates`, from 0.")
    ] = 0

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "u42", "candidates": ["i1", "i2"], "candidate": 1, "adapter": "general"}]
        }
    )


class UserEvent(_Request):
    """An interaction of a user with an item."""

    user_id: Annotated[Text, Field(description="Id of the user, who may be new.")]
    item_id: Annotated[Text, Field(description="Id of an item of the catalogue.")]
    timestamp: Annotated[
        int | None,
        Field(
            ge=-(2**63),
            lt=2**63,
            description="Time of the interaction in the unit of the dataset, usually seconds; the current time by "
            "default.",
        ),
    ] = None
    event_id: Annotated[
        Text | None,
        Field(description="Id that the client gives the event; an event that is sent twice is stored once."),
    ] = None


class EventsRequest(_Request):
    """Interactions to store; either all of them are stored or none."""

    events: Annotated[
        list[UserEvent], Field(min_length=1, max_length=MAX_EVENTS, description="Interactions in any order.")
    ]

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"events": [{"user_id": "u42", "item_id": "i3", "event_id": "click-1"}]}]}
    )


class LoadAdapterRequest(_Request):
    """An adapter to load."""

    name: Annotated[Text, Field(description="Name of a folder in the adapters folder; a path is not accepted.")]

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "general"}]})


class RankedItem(BaseModel):
    """An item with its score."""

    item_id: Annotated[str | None, Field(description="Id of the item; null if the request gave its title.")]
    title: Annotated[str, Field(description="Title of the item.")]
    score: Annotated[
        float,
        Field(
            description="Score that orders the items: `log_odds` or `log_likelihood` plus `log_prior`, which is the "
            "logarithm of a posterior up to a constant. Scores are comparable within one response only."
        ),
    ]
    log_odds: Annotated[
        float | None,
        Field(description="Log-odds of yes against no with the readout `verdict`; null with `likelihood`."),
    ]
    log_likelihood: Annotated[
        float | None,
        Field(description="Log-probability of the title with the readout `likelihood`; null with `verdict`."),
    ]
    log_prior: Annotated[
        float,
        Field(
            description="Logarithm of the prior up to a constant: in recommendations, minus the logarithm of the rank "
            "that the index gave the item, from 1; 0 if the request gives the candidates."
        ),
    ]
    probability: Annotated[
        float, Field(description="Posterior probability among the candidates: the softmax of their scores.")
    ]
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


class RankResponse(BaseModel):
    """Ranked items."""

    ranking: Annotated[list[RankedItem], Field(description="Items, best first.")]
    mixture: MixtureWeights
    personal: PersonalWeights


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
    mixture: MixtureWeights
    personal: PersonalWeights


class EventsResponse(BaseModel):
    """Numbers of events that were stored or already known."""

    stored: Annotated[int, Field(description="Number of new events.")]
    known: Annotated[int, Field(description="Number of events whose `event_id` was stored before.")]


class CatalogueItem(BaseModel):
    """An item of the catalogue."""

    item_id: Annotated[str, Field(description="Id of the item.")]
    title: Annotated[str, Field(description="Title of the item.")]


class ItemsResponse(BaseModel):
    """Items of the catalogue."""

    items: Annotated[list[CatalogueItem], Field(description="Items in the order that the path describes.")]


class UsersResponse(BaseModel):
    """Users of the dataset."""

    users: Annotated[list[str], Field(description="User ids, best match first.")]


class AdapterInfo(BaseModel):
    """A loaded adapter."""

    name: Annotated[str, Field(description="Name of the adapter.")]
    kind: Annotated[
        AdapterKind,
        Field(
            description="`adapter`, or `personal` for a folder of `lorarec personal choose`, which is mixed for each "
            "user."
        ),
    ]
    fingerprint: Annotated[str, Field(description="Hash of the adapter's files when it was loaded.")]
    rank: Annotated[int, Field(description="Largest rank of the adapter's layers.")]
    readout: Annotated[str, Field(description="How candidates are scored: `verdict` or `likelihood`.")]
    in_folder: Annotated[bool, Field(description="Whether the adapters folder still lists the adapter.")]


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


class AdaptersResponse(BaseModel):
    """Loaded adapters and adapters that can be loaded."""

    loaded: Annotated[list[AdapterInfo], Field(description="Adapters in memory.")]
    available: Annotated[list[str], Field(description="Names of adapters that can be loaded.")]
    kinds: Annotated[dict[str, AdapterKind], Field(description="Kind of each adapter that can be loaded.")]


class LivenessResponse(BaseModel):
    """Whether the threads of the service work."""

    status: Annotated[str, Field(description="`ok`, or `stuck` if the service must be restarted.")]


class HealthResponse(BaseModel):
    """Whether the service can answer every request."""

    status: Annotated[
        str,
        Field(
            description="`ok`; `degraded` if the database is not usable; `stuck` if a thread hangs and the service "
            "must be restarted."
        ),
    ]
    database: Annotated[
        str,
        Field(description="`ok`; `unreachable`; or `unusable`: locked, full, read-only, damaged or without tables."),
    ]
    adapters: Annotated[int, Field(description="Number of loaded adapters.")]


class ErrorDetail(BaseModel):
    """What is wrong with a request and how to correct it."""

    field: Annotated[str | None, Field(description="Path of the field at fault, as in `candidates.3`.")]
    message: Annotated[str, Field(description="One line that says what is wrong.")]


class ErrorResponse(BaseModel):
    """Response to a request that cannot be answered."""

    error: Annotated[ErrorDetail, Field(description="What is wrong.")]
