"""JSON schemas of requests for rankings: their fields, limits and examples; and fields that other requests share."""

from typing import Annotated, Any

from fastapi import Query
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    Tag,
    model_validator,
)

from lorarec.data import EARLIEST_TIME, LATEST_TIME, FilterOperator

MAX_HISTORY = 1000
MAX_CANDIDATES = 1000
MAX_EXPLAINED = 100
MAX_TOP = 100
MAX_FILTER_ITEMS = 10_000
MAX_FILTERS = 16
MAX_LIMITS = 4
MAX_FILTER_VALUES = 1000
MAX_MIXED_ADAPTERS = 16
MAX_RESULTS = 100


def refuse_nul(text: str) -> str:
    """Refuse the character NUL, which PostgreSQL cannot store."""
    if "\0" in text:
        raise ValueError("text must not hold the character NUL")
    return text


def _refuse_other_types(value: Any) -> Any:
    """Refuse text, true and false for a number, which pydantic would convert."""
    if isinstance(value, bool | str):
        raise ValueError("input should be a number")
    return value


Integer = Annotated[int, BeforeValidator(_refuse_other_types)]
Number = Annotated[float, BeforeValidator(_refuse_other_types)]
Text = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(refuse_nul)]
Weight = Annotated[Number, Field(ge=0, le=1, allow_inf_nan=False)]
SearchQuery = Annotated[
    str,
    Query(
        max_length=100,
        description="Words or parts of words, all of which must occur in a result.",
        examples=["toy story"],
    ),
    AfterValidator(refuse_nul),
]
Limit = Annotated[int, Query(ge=1, le=MAX_RESULTS, description="Maximum number of results.")]


#: What every request for a user or a history fulfils, which its fields alone do not say.
_ONE_HISTORY: list[Any] = [
    {"required": ["user_id"], "properties": {"user_id": {"type": "string"}, "assignment_id": {"type": "null"}}},
    {"required": ["history"], "properties": {"history": {"type": "array"}}},
]


def _history_request(*examples: Any) -> ConfigDict:
    """Return the configuration of a request for a user or a history, with its examples."""
    return ConfigDict(json_schema_extra={"oneOf": _ONE_HISTORY, "examples": list(examples)})


class RequestBody(BaseModel):
    """The body of a request, in which unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class ItemTitle(RequestBody):
    """An item that is not in the catalogue, given by its title."""

    title: Annotated[Text, Field(description="Title of the item.")]


Item = Text | ItemTitle
#: Seconds since 1970, or positions; a time in milliseconds is above them.
Timestamp = Annotated[Integer, Field(ge=EARLIEST_TIME, lt=LATEST_TIME)]
_Time = Annotated[
    Timestamp | None,
    Field(
        description="Time of the interaction in seconds since 1970 or, if the dataset has positions in place of times, "
        "a position. Either all items of a history have one or none has."
    ),
]


class HistoryItem(RequestBody):
    """An item of the catalogue in a history."""

    item_id: Annotated[Text, Field(description="Id of the item.")]
    timestamp: _Time = None


class HistoryTitle(ItemTitle):
    """An item in a history that is not in the catalogue, given by its title."""

    timestamp: _Time = None


def _kind_of_history_item(value: Any) -> str:
    """Return the tag of the alternative that a client means, so that errors are those of one alternative."""
    if isinstance(value, HistoryItem) or (isinstance(value, dict) and "item_id" in value):
        return "HistoryItem"
    return "HistoryTitle" if isinstance(value, dict | HistoryTitle) else "Text"


InHistory = Annotated[
    Annotated[Text, Tag("Text")]
    | Annotated[HistoryItem, Tag("HistoryItem")]
    | Annotated[HistoryTitle, Tag("HistoryTitle")],
    Discriminator(_kind_of_history_item),
]
AdapterChoice = Annotated[
    Text | Annotated[dict[Text, Weight], Field(max_length=MAX_MIXED_ADAPTERS)] | None,
    Field(
        description="Name or alias of a loaded adapter, or an object from names to weights that sum to 1; {} is the "
        "backbone without adapters. Without the field the variant of the experiment answers, if there is one, or the "
        "fusion, or the default adapter; if the service has none of them, the field is optional only if exactly one "
        "adapter is loaded."
    ),
]

AssignmentId = Annotated[
    Text | None,
    Field(
        description="Id by which a request with a `history` is assigned to a variant of the experiment, such as that "
        "of a session; without it, the first variant answers. Requests with `user_id` are assigned by that."
    ),
]


class _HistoryRequest(RequestBody):
    user_id: Annotated[
        Text | None, Field(description="Id of the user whose stored history is read, in place of `history`.")
    ] = None
    history: Annotated[
        list[InHistory] | None,
        Field(
            max_length=MAX_HISTORY,
            description="Items, oldest first: ids of the catalogue, or objects with `item_id` or `title`. With the "
            "`timestamp` of each, they are ordered by time, and used as the stored history of a user whom the dataset "
            "does not have.",
        ),
    ] = None
    adapter: AdapterChoice = None
    assignment_id: AssignmentId = None

    @model_validator(mode="after")
    def _require_one_history(self) -> Any:
        if (self.user_id is None) == (self.history is None):
            raise ValueError("give either user_id or history")
        if self.user_id is not None and self.assignment_id is not None:
            raise ValueError("a request with user_id is assigned by that: give assignment_id with a history only")
        return self


class RankRequest(_HistoryRequest):
    """Candidates to rank for a user or a history."""

    candidates: Annotated[
        list[Item],
        Field(
            min_length=1, max_length=MAX_CANDIDATES, description="Item ids of the catalogue or titles, in any order."
        ),
    ]

    model_config = _history_request(
        {"user_id": "u42", "candidates": ["i1", "i2", {"title": "A title nobody has seen yet"}]},
        {
            "history": ["i7", {"title": "Heat"}],
            "candidates": ["i1", "i2"],
            "adapter": {"general": 0.3, "specific": 0.7},
        },
        {
            "history": [{"item_id": "i7", "timestamp": 1764115200}, {"title": "Heat", "timestamp": 1764118800}],
            "candidates": ["i1", "i2"],
            "adapter": "general",
        },
    )


FilterValue = Text | StrictBool | StrictInt | StrictFloat


class ItemCondition(RequestBody):
    """A condition on a column of the items; items without a value in it never match."""

    column: Annotated[Text, Field(description="Name of a column of the items of the dataset.")]
    op: Annotated[
        FilterOperator,
        Field(
            description="Operator. Numbers have all but `contains`, text has no order, and lists of text have "
            "`contains` only, which is true of lists with this element and of text with this part."
        ),
    ]
    value: Annotated[
        FilterValue | Annotated[list[FilterValue], Field(min_length=1, max_length=MAX_FILTER_VALUES)],
        Field(description="Text, number, or true or false, as the column has; a list of them for `in` and `not in`."),
    ]


class ItemBoost(RequestBody):
    """A number that is added to the score of items that match a condition."""

    where: Annotated[ItemCondition, Field(description="Condition that the items match.")]
    add: Annotated[
        Number, Field(ge=-1e6, le=1e6, allow_inf_nan=False, description="Number; a negative one moves items down.")
    ]


class _CatalogueRequest(_HistoryRequest):
    where: Annotated[
        list[ItemCondition],
        Field(
            max_length=MAX_FILTERS,
            description="Conditions that all recommended items match; they are applied before candidates are drawn.",
        ),
    ] = []
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


class RecommendRequest(_CatalogueRequest):
    """A user or a history to recommend items of the catalogue for."""

    top: Annotated[
        Integer,
        Field(
            ge=1,
            le=MAX_TOP,
            description="Number of items to recommend, at most the number of candidates that the service proposes. "
            "If it is not given, 10, or all candidates where the service proposes fewer.",
        ),
    ] = 10
    at_most: Annotated[
        dict[Text, Annotated[Integer, Field(ge=1)]],
        Field(
            max_length=MAX_LIMITS,
            description="Maximum number of recommended items with the same value in a column, by column. Items without "
            "a value in it are not limited.",
        ),
    ] = {}
    boost: Annotated[
        list[ItemBoost],
        Field(
            max_length=MAX_FILTERS,
            description="Numbers that are added to the scores of candidates to order them; `score` stays what it was, "
            "and `boost` of an item is what was added.",
        ),
    ] = []

    model_config = _history_request(
        {"user_id": "u42", "top": 5, "adapter": {"general": 0.3, "specific": 0.7}, "deny": ["i9"]},
        {
            "user_id": "u42",
            "where": [
                {"column": "price", "op": "<=", "value": 20},
                {"column": "region", "op": "in", "value": ["DE", "AT"]},
            ],
            "at_most": {"brand": 2},
            "boost": [{"where": {"column": "in_stock", "op": "=", "value": True}, "add": 0.5}],
        },
    )


class ExplainRequest(_CatalogueRequest):
    """An item whose score is to be explained: a recommended one, or one of given candidates."""

    item_id: Annotated[
        Text | None,
        Field(
            description="Id of the recommended item whose score is explained; the best one by default. An item that "
            "the index does not propose becomes the last candidate. Not with `candidates`."
        ),
    ] = None
    candidates: Annotated[
        list[Item] | None,
        Field(
            min_length=1,
            max_length=MAX_EXPLAINED,
            description="Item ids of the catalogue or titles, in any order, to explain a score of `/v1/rank`. Without "
            "the field, the candidates are those of `/v1/recommend`.",
        ),
    ] = None
    candidate: Annotated[
        Integer | None,
        Field(
            ge=0,
            lt=MAX_EXPLAINED,
            description="Index of the explained candidate in `candidates`, from 0; the first by default.",
        ),
    ] = None

    model_config = _history_request(
        {"user_id": "u42", "item_id": "i3"},
        {"user_id": "u42", "candidates": ["i1", "i2"], "candidate": 1, "adapter": "general"},
    )

    @model_validator(mode="after")
    def _refuse_two_kinds_of_answers(self) -> Any:
        if self.candidates is None and self.candidate is not None:
            raise ValueError("candidate is an index in candidates: give candidates, or item_id in its place")
        if self.candidates is not None and (self.item_id or self.allow is not None or self.deny or self.where):
            raise ValueError(
                "where, item_id, allow and deny are for recommendations: leave them out, or leave out candidates"
            )
        return self
