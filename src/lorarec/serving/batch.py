"""Batches: several rankings and recommendations in one request, each of which is answered by its own status."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from lorarec.serving.error_handlers import unreachable_database, validation_faults
from lorarec.serving.errors import ApiError
from lorarec.serving.response_schemas import ProblemDetails, RankResponse
from lorarec.serving.schema_parts import examples_of
from lorarec.serving.schemas import RankRequest, RecommendRequest
from lorarec.serving.service import Service

#: Maximum number of requests in a batch.
MAX_BATCH = 64

T = TypeVar("T", bound=BaseModel)

logger = logging.getLogger(__name__)


class BatchedRequest(BaseModel):
    """A request of a batch."""

    path: Annotated[
        Literal["/v1/rank", "/v1/recommend"], Field(description="Path to which the request could be sent by itself.")
    ]
    body: Annotated[
        Any, Field(description="Body of the request; one that is invalid is answered by status 422 of its own.")
    ]

    model_config = ConfigDict(extra="forbid")


class BatchRequest(BaseModel):
    """Requests that are answered together."""

    requests: Annotated[
        list[BatchedRequest],
        Field(
            min_length=1,
            max_length=MAX_BATCH,
            description="Requests in any order. Each counts like one that is sent by itself where the service limits "
            "how many it takes.",
        ),
    ]

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "requests": [
                        {
                            "path": "/v1/rank",
                            "body": {"user_id": "u42", "candidates": ["i1", "i2"], "adapter": "general"},
                        },
                        {"path": "/v1/recommend", "body": {"user_id": "u7", "top": 5, "adapter": "general"}},
                    ]
                }
            ]
        },
    )


class BatchedResponse(BaseModel):
    """Response to a request of a batch."""

    status: Annotated[int, Field(description="HTTP status that the request would have by itself.")]
    body: Annotated[
        RankResponse | ProblemDetails, Field(description="Response to the request, or what is wrong with it.")
    ]
    retry_after: Annotated[
        int | None,
        Field(description="With status 429 or 503, the seconds after which to try again; null otherwise."),
    ] = None


class BatchResponse(BaseModel):
    """Responses to the requests of a batch."""

    responses: Annotated[list[BatchedResponse], Field(description="Responses in the order of the requests.")]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "responses": [
                        {"status": 200, "body": examples_of(RankResponse)[0], "retry_after": None},
                        {"status": 422, "body": examples_of(ProblemDetails)[0], "retry_after": None},
                    ]
                }
            ]
        }
    )


async def answer_batch(service: Service, batch: BatchRequest) -> BatchResponse:
    """Answer the requests of a batch at the same time; what is wrong with one does not affect the others."""
    responses = await asyncio.gather(*(_answer(service, each) for each in batch.requests))
    return BatchResponse(responses=list(responses))


async def _answer(service: Service, request: BatchedRequest) -> BatchedResponse:
    try:
        return BatchedResponse(status=200, body=await _call(service, request))
    except ApiError as refused:
        error = refused
    except SQLAlchemyError as failed:
        error = unreachable_database(failed)
    except Exception:
        logger.exception("a request of a batch failed")
        error = ApiError(500, "internal error: see the log of the service")
    retry_after = error.headers.get("Retry-After")
    problem = ProblemDetails.model_validate(error.body)
    return BatchedResponse(
        status=error.status, body=problem, retry_after=None if retry_after is None else int(retry_after)
    )


def _call(service: Service, request: BatchedRequest) -> Awaitable[RankResponse]:
    """Return the call of the service for a request.

    Raises:
        ApiError: 422, if fields of the request are invalid.
    """
    if request.path == "/v1/rank":
        return service.rank(_valid(RankRequest, request.body))
    return service.recommend(_valid(RecommendRequest, request.body))


def _valid(kind: type[T], body: Any) -> T:
    try:
        return kind.model_validate(body, from_attributes=True)  # as FastAPI does, with the same messages
    except ValidationError as error:
        found = [each | {"loc": ("body", *each["loc"])} for each in error.errors()]
        raise ApiError(422, faults=validation_faults(found)) from None
