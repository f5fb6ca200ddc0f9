"""JSON schemas of events, and of what is stored of a user."""

from datetime import datetime
from typing import Annotated

from fastapi import Header, Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lorarec.serving.schemas import RequestBody, Text, Timestamp, refuse_nul

#: Maximum number of events in a request.
MAX_EVENTS = 1000

UserId = Annotated[
    str,
    Query(min_length=1, max_length=500, description="Id of the user.", examples=["u42"]),
    AfterValidator(refuse_nul),
]
StoredUserId = Annotated[
    str,
    Path(min_length=1, max_length=500, description="Id of the user.", examples=["u42"]),
    AfterValidator(refuse_nul),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Key that the client gives the request. Each event without an event_id gets one of the key and its "
        "position, so that a request that is sent twice is stored once.",
        examples=["0f8fad5b-d9cb-469f-a165-70867728950e"],
    ),
]


class UserEvent(RequestBody):
    """An interaction of a user with an item."""

    user_id: Annotated[Text, Field(description="Id of the user, who may be new.")]
    item_id: Annotated[Text, Field(description="Id of an item of the catalogue.")]
    timestamp: Annotated[
        Timestamp | None,
        Field(
            description="Time of the interaction in seconds since 1970 or, if the dataset has positions in place of "
            "times, a position; the current time by default.",
        ),
    ] = None
    event_id: Annotated[
        Text | None,
        Field(
            description="Id that the client gives the event; an event that is sent twice is stored once. Another event "
            "of the user with the same id is refused."
        ),
    ] = None


class EventsRequest(RequestBody):
    """Interactions to store; either all of them are stored or none."""

    events: Annotated[
        list[UserEvent], Field(min_length=1, max_length=MAX_EVENTS, description="Interactions in any order.")
    ]

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"events": [{"user_id": "u42", "item_id": "i3", "event_id": "click-1"}]}]}
    )


class LoggedAnswer(BaseModel):
    """An answer to a user as the answer log holds it."""

    request_id: Annotated[str | None, Field(description="Id of the request.")]
    time: Annotated[datetime, Field(description="Time at which the request arrived.")]
    experiment: Annotated[str | None, Field(description="Name of the experiment, or null.")]
    variant: Annotated[str | None, Field(description="Name of the variant of the experiment, or null.")]
    propensity: Annotated[float | None, Field(description="Probability of the variant, or null.")]
    shadow: Annotated[bool, Field(description="Whether the answer was computed for comparison only.")]
    versions: Annotated[
        list[dict[str, str]], Field(description="`name` and `version` of each adapter that answered, or of the fusion.")
    ]
    item_ids: Annotated[
        list[str | None], Field(description="Ids of the ranked items, best first; null for titles that have no id.")
    ]
    scores: Annotated[list[float], Field(description="Score of each item.")]
    probabilities: Annotated[list[float], Field(description="Posterior probability of each item.")]
    candidates: Annotated[int, Field(description="Number of candidates.")]


class StoredInteraction(BaseModel):
    """An interaction of a user as the database holds it."""

    item_id: Annotated[str, Field(description="Id of the item.")]
    timestamp: Annotated[
        int, Field(description="Time in seconds since 1970, or a position if the dataset has positions.")
    ]
    event_id: Annotated[
        str | None,
        Field(
            description="Id that the client gave the event, or `sha256:` and its hash if it is longer than 256 bytes; "
            "null for interactions of the dataset and events without an id."
        ),
    ]


class StoredUser(BaseModel):
    """All that the database and the answer log hold of a user."""

    user_id: Annotated[str, Field(description="Id of the user.")]
    events: Annotated[list[StoredInteraction], Field(description="Interactions, oldest first.")]
    answers: Annotated[
        list[LoggedAnswer],
        Field(description="Answers in the answer log, oldest first; empty if the service logs no answers."),
    ]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "u42",
                    "events": [{"item_id": "i3", "timestamp": 1764115200, "event_id": "click-1"}],
                    "answers": [],
                }
            ]
        }
    )


class DeletedUser(BaseModel):
    """What was deleted of a user."""

    deleted: Annotated[int, Field(description="Number of deleted interactions.")]
    answers: Annotated[int, Field(description="Number of answers that were deleted from the answer log.")]

    model_config = ConfigDict(json_schema_extra={"examples": [{"deleted": 7, "answers": 0}]})
