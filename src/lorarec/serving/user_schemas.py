"""JSON schemas of what is stored of a user."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class LoggedAnswer(BaseModel):
    """An answer to a user as the answer log holds it."""

    request_id: Annotated[str | None, Field(description="Id of the request.")]
    time: Annotated[datetime, Field(description="Time at which the request arrived.")]
    variant: Annotated[str | None, Field(description="Name of the variant of the experiment, or null.")]
    item_ids: Annotated[
        list[str | None], Field(description="Ids of the ranked items, best first; null for titles that have no id.")
    ]
    scores: Annotated[list[float], Field(description="Score of each item.")]


class StoredInteraction(BaseModel):
    """An interaction of a user as the database holds it."""

    item_id: Annotated[str, Field(description="Id of the item.")]
    timestamp: Annotated[int, Field(description="Time in the unit of the dataset.")]
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
