"""Requests as JSON: shapes, limits and examples."""

from typing import Annotated, Any

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MAX_HISTORY = 1000
MAX_CANDIDATES = 1000
MAX_EXPLAINED = 100
MAX_TOP = 100
MAX_LISTED = 10_000
MAX_EVENTS = 1000
MAX_MIXED = 16
MAX_FOUND = 100


def _plain(text: str) -> str:
    """Text that databases can hold; halves of surrogate pairs are no strings to pydantic where lengths are limited."""
    if "\0" in text:
        raise ValueError("text must not hold the character NUL")
    return text


Text = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_plain)]
Weight = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Words = Annotated[
    str,
    Query(max_length=100, description="Words or parts of words that must all occur.", examples=["toy story"]),
    AfterValidator(_plain),
]
Limit = Annotated[int, Query(ge=1, le=MAX_FOUND, description="How many at most.")]
UserId = Annotated[str, Query(min_length=1, max_length=500, examples=["u42"]), AfterValidator(_plain)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Title(_Model):
    """An item that the catalogue does not have, by its title."""

    title: Text


Item = Text | Title
AdapterChoice = Annotated[
    Text | Annotated[dict[Text, Weight], Field(max_length=MAX_MIXED)] | None,
    Field(
        description="A loaded adapter, or weights of several that sum to 1; {} is the backbone alone. May be left out "
        "where one adapter is loaded."
    ),
]


class _OfSomeone(_Model):
    user_id: Annotated[Text | None, Field(description="Whose stored history to read, in place of `history`.")] = None
    history: Annotated[
        list[Item] | None,
        Field(max_length=MAX_HISTORY, description="Item ids of the catalogue or titles, oldest first."),
    ] = None
    adapter: AdapterChoice = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Any:
        if (self.user_id is None) == (self.history is None):
            raise ValueError("give either user_id or history")
        return self


class RankRequest(_OfSomeone):
    """Candidates to put in order for a user or a history."""

    candidates: Annotated[list[Item], Field(min_length=1, max_length=MAX_CANDIDATES)]

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


class RecommendRequest(_OfSomeone):
    """Who to recommend items of the whole catalogue to."""

    top: Annotated[int, Field(ge=1, le=MAX_TOP, description="How many items.")] = 10
    allow: Annotated[
        list[Text] | None, Field(max_length=MAX_LISTED, description="The only items that may be recommended.")
    ] = None
    deny: Annotated[
        list[Text], Field(max_length=MAX_LISTED, description="Items that must not be: unwanted, or out of stock.")
    ] = []

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "u42", "top": 5, "adapter": {"general": 0.3, "specific": 0.7}, "deny": ["i9"]}]
        }
    )


class ExplainRequest(RankRequest):
    """A candidate whose score is to be explained, among the others."""

    candidates: Annotated[list[Item], Field(min_length=1, max_length=MAX_EXPLAINED)]
    candidate: Annotated[int, Field(ge=0, lt=MAX_EXPLAINED, description="Its place among the candidates, from 0.")] = 0

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "u42", "candidates": ["i1", "i2"], "candidate": 1, "adapter": "general"}]
        }
    )


class EventIn(_Model):
    """One interaction."""

    user_id: Text
    item_id: Text
    timestamp: Annotated[
        int | None,
        Field(ge=-(2**63), lt=2**63, description="As in the dataset, which counts seconds as a rule; now if left out."),
    ] = None
    event_id: Annotated[
        Text | None, Field(description="The client's own name for the event: sent twice, it is stored once.")
    ] = None


class EventsRequest(_Model):
    """Interactions to store, all or none."""

    events: Annotated[list[EventIn], Field(min_length=1, max_length=MAX_EVENTS)]

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"events": [{"user_id": "u42", "item_id": "i3", "event_id": "click-1"}]}]}
    )


class AdapterName(_Model):
    """An adapter to load."""

    name: Annotated[Text, Field(description="A folder's name in the adapters folder; never a path.")]

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "general"}]})
