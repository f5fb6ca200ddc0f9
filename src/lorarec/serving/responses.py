"""Answers as JSON: shapes and what they mean."""

from typing import Annotated

from pydantic import BaseModel, Field

from lorarec.serving.registry import Kind


class RankedItem(BaseModel):
    """One item of an answer, best first."""

    item_id: Annotated[str | None, Field(description="None for an item given by its title.")]
    title: str
    score: Annotated[
        float,
        Field(
            description="Orders the items: `log_odds` or `log_likelihood` plus `log_prior`, the logarithm of a "
            "posterior up to a constant; scores compare within one answer only."
        ),
    ]
    log_odds: Annotated[
        float | None,
        Field(description="Log-odds of yes against no, under the readout `verdict`; null under `likelihood`."),
    ]
    log_likelihood: Annotated[
        float | None,
        Field(description="Log-probability of the title, under the readout `likelihood`; null under `verdict`."),
    ]
    log_prior: Annotated[
        float,
        Field(
            description="Logarithm of the prior, up to a constant: in recommendations minus the logarithm of the place "
            "that the index gave the item in the pool, from 1; 0 where the request gives the candidates."
        ),
    ]
    probability: Annotated[
        float, Field(description="Its share of the posterior over the candidates, the softmax of their scores.")
    ]
    candidate: Annotated[int, Field(description="Its place among the candidates, from 0.")]


class UserWeights(BaseModel):
    """What a personal adapter gave a user of the adapters it mixes."""

    routed: Annotated[bool, Field(description="Whether chosen for the user; else the mean, since nothing is known.")]
    parts: Annotated[list[str], Field(description="The adapters it mixes.")]
    layers: Annotated[dict[str, list[float]], Field(description="Weight of each part, by adapted layer.")]


Shares = Annotated[dict[str, float], Field(description="The adapters that scored and their weights.")]
Personal = Annotated[
    dict[str, UserWeights], Field(description="Of each personal adapter in the mixture, what it consisted of.")
]


class RankResponse(BaseModel):
    """Items in order."""

    ranking: list[RankedItem]
    mixture: Shares
    personal: Personal


class Influence(BaseModel):
    """One item of the history."""

    item_id: Annotated[str | None, Field(description="None for an item given by its title.")]
    title: str
    score: Annotated[float, Field(description="How much the candidate's score falls when the item is left out.")]
    probability: Annotated[float, Field(description="The same of its probability.")]


class ExplainResponse(BaseModel):
    """What a candidate's score rests on."""

    candidate: RankedItem
    history: Annotated[list[Influence], Field(description="The items that the prompt shows, oldest first.")]
    mixture: Shares
    personal: Personal


class EventsResponse(BaseModel):
    """What became of events."""

    stored: Annotated[int, Field(description="Events that were new.")]
    known: Annotated[int, Field(description="Events whose event_id had been stored before.")]


class FoundItem(BaseModel):
    """An item of the catalogue."""

    item_id: str
    title: str


class ItemsResponse(BaseModel):
    """Items of the catalogue."""

    items: list[FoundItem]


class UsersResponse(BaseModel):
    """Users of the dataset."""

    users: list[str]


class AdapterState(BaseModel):
    """A loaded adapter."""

    name: str
    kind: Annotated[Kind, Field(description="`personal`: what `personal choose` wrote, mixed for each user.")]
    fingerprint: Annotated[str, Field(description="Of its files when it was loaded.")]
    rank: Annotated[int, Field(description="Its largest.")]
    readout: str
    in_folder: Annotated[bool, Field(description="Whether its folder is still there.")]


class LayerWeights(BaseModel):
    """Of what one adapted layer consists."""

    layer: str
    weights: Annotated[dict[str, float], Field(description="Weight of each part.")]


class AdapterDetails(AdapterState):
    """A loaded adapter, and what it was mixed from, layer by layer; one that was not mixed is its own only part.

    Of a personal adapter these are the mean weights, for those of whom nothing is known.
    """

    user_id: Annotated[str | None, Field(description="The user for whom it was mixed, if it is a personal one.")]
    layers: list[LayerWeights]


class AdaptersResponse(BaseModel):
    """Adapters in memory and in the folder."""

    loaded: list[AdapterState]
    available: Annotated[list[str], Field(description="Names that can be loaded.")]
    kinds: Annotated[dict[str, Kind], Field(description="What each of these is.")]


class Liveness(BaseModel):
    """Whether the service's threads do their work."""

    status: Annotated[str, Field(description="`ok`, or `stuck`: restart the service.")]


class Health(BaseModel):
    """Whether the service can answer any request."""

    status: Annotated[
        str, Field(description="`ok`; `degraded`, for the database; or `stuck`, for a thread: restart the service.")
    ]
    database: Annotated[
        str,
        Field(description="`ok`; `unreachable`; or `unusable`: locked, full, read-only, damaged or without tables."),
    ]
    adapters: Annotated[int, Field(description="How many are loaded.")]


class ErrorDetail(BaseModel):
    """What is wrong and what to do."""

    field: Annotated[str | None, Field(description="Where in the request.")]
    message: str


class ErrorResponse(BaseModel):
    """The answer to a request that cannot be served."""

    error: ErrorDetail
