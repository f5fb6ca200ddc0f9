"""Calls of the service's API as its clients send them, and what they make of the responses."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

import httpx2

from lorarec.errors import LorarecError
from lorarec.serving.answer_reading import read_answer
from lorarec.serving.answers import (
    BatchAnswers,
    BatchedAnswer,
    Ranking,
    Reranking,
    ScoreExplanation,
    StoredEvents,
)

#: Statuses after which the same request may succeed a little later.
RETRYABLE = (408, 429, 502, 503, 504)
#: Seconds before the first retry; each further one waits about twice as long, up to the maximum.
FIRST_WAIT = 0.5
MAX_WAIT = 30.0
#: Maximum number of requests in one batch, and of bytes of several, which also limits the number of values in them.
MAX_BATCH = 64
MAX_BATCH_BYTES = 1 << 16

#: What reading an answer of another form raises.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)

#: An item id of the catalogue, or `{"title": ...}`; in a history also `{"item_id": ...}`, and both with a `timestamp`.
Item = str | Mapping[str, str | int]
#: Name of an adapter, or weights of adapters by name.
Adapter = str | Mapping[str, float]
#: A condition `{"column": ..., "op": ..., "value": ...}` on the columns of the items.
Condition = Mapping[str, Any]
Event = Mapping[str, Any]

T = TypeVar("T")


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field of a request.

    Attributes:
        field: Path of the field, as in `candidates.3`.
        message: One line that says what is wrong and how to correct it.
    """

    field: str
    message: str


class ServiceError(LorarecError):
    """The error of a client whose request the service refused, or did not answer.

    Attributes:
        status: HTTP status code; None if there was no answer.
        detail: What is wrong, as the service says it.
        errors: What is wrong with fields of the request.
        request_id: Id of the request, as the log of the service has it.
        retry_after: Seconds after which the service asks to try again, or None.

    Examples:
        >>> from lorarec import Client, ServiceError
        >>> with Client("http://127.0.0.1:9", retries=0) as client:
        ...     try:
        ...         client.rank(["i1", "i2"], user_id="u42")
        ...     except ServiceError as error:
        ...         print(error.status)
        None
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        detail: str = "",
        errors: Sequence[FieldError] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail or message
        self.errors = list(errors)
        self.request_id = request_id
        self.retry_after = retry_after


@dataclass(frozen=True)
class Call(Generic[T]):
    """A call of the API.

    Attributes:
        method: HTTP method.
        path: Path of the API.
        answer: Class of the answer; None for an empty one.
        body: JSON of the body, or None.
        query: Query parameters.
        headers: Further headers.
        repeatable: Whether the call can be sent again if it is not known whether the service carried it out.
        accepted: Statuses other than success that come with the answer.
    """

    method: str
    path: str
    answer: type[T]
    body: Mapping[str, Any] | None = None
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    accepted: tuple[int, ...] = ()

    def read(self, response: httpx2.Response, request_id: str) -> T:
        """Return the answer of a response.

        Raises:
            ServiceError: The response is an error, or is not of this API.
        """
        if not response.is_success and response.status_code not in self.accepted:
            raise refusal(response, request_id)
        try:
            return read_answer(self.answer, response.json() if response.content else None)
        except UNREADABLE as error:
            raise other_answer(str(response.url), response.text, response.status_code, error, request_id) from error


def other_answer(source: str, text: str, status: int, error: Exception, request_id: str | None) -> ServiceError:
    """Return the error of a success that is not an answer of this API."""
    return ServiceError(
        f"{source} answered {text[:60]!r}, which is not an answer of lorarec ({error}): check base_url and the "
        "versions of client and service",
        status,
        request_id=request_id,
    )


def refusal(response: httpx2.Response, request_id: str) -> ServiceError:
    """Return the error of a response that is not a success."""
    try:
        detail, errors = _read_problem(response.json())
    except UNREADABLE:
        detail, errors = response.text[:200].strip() or response.reason_phrase, []
    return ServiceError(
        f"{response.url} answered {response.status_code}: {' '.join(detail.split())}",
        response.status_code,
        detail,
        errors,
        response.headers.get("x-request-id", request_id),
        retry_after(response),
    )


def _read_problem(problem: Any) -> tuple[str, list[FieldError]]:
    """Return the detail and the errors of problem details."""
    errors = [FieldError(str(each["field"]), str(each["message"])) for each in problem.get("errors", ())]
    return str(problem["detail"]), errors


def no_answer(base_url: str, timeout: float, error: httpx2.RequestError, request_id: str) -> ServiceError:
    """Return the error of a request that got no response."""
    if isinstance(error, httpx2.TimeoutException) and not isinstance(error, httpx2.ConnectTimeout):
        message = f"the service at {base_url} did not answer within {timeout:g} seconds: raise timeout"
    elif isinstance(error, httpx2.DecodingError):
        message = f"the service at {base_url} gave an answer that cannot be decoded ({error}): check base_url"
    elif isinstance(error, httpx2.ReadError | httpx2.WriteError | httpx2.RemoteProtocolError):
        message = (
            f"the connection to the service at {base_url} broke before the answer ({_reason(error)}): it may have "
            "carried out the request or not"
        )
    else:
        message = f"the service at {base_url} cannot be reached ({_reason(error)}): start it, or correct base_url"
    return ServiceError(message, request_id=request_id)


def _reason(error: httpx2.RequestError) -> str:
    return str(error) or type(error).__name__


def is_transient(error: httpx2.RequestError) -> bool:
    """Return whether a request may be sent again after an error of the connection.

    After a timeout the service may still be at work, and more of the same would only slow it down.
    """
    is_timeout = isinstance(error, httpx2.TimeoutException) and not isinstance(error, httpx2.ConnectTimeout)
    is_permanent = isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError | httpx2.DecodingError)
    return not is_timeout and not is_permanent


def wait_seconds(attempt: int, asked: float | None = None) -> float:
    """Return the seconds to wait before a retry: what the service asks for, or twice as long each time.

    Args:
        attempt: Number of attempts so far, from 1.
        asked: Seconds that the service asks to wait, or None.
    """
    backoff = min(MAX_WAIT, FIRST_WAIT * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)
    return backoff if asked is None else max(asked, backoff)


def retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds of the header `Retry-After`, which holds seconds or a date; None without a valid one."""
    value = response.headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Return a body as JSON.

    Raises:
        LorarecError: A value is not JSON.
    """
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise LorarecError(f"the request is not JSON: {error}") from error


def check_query(query: Mapping[str, Any]) -> None:
    """Refuse a query that UTF-8 cannot encode.

    Raises:
        LorarecError: A value has half of a surrogate pair.
    """
    for name, value in query.items():
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            raise LorarecError(f"{name} {value!r} cannot be sent: {error}") from error


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _ranked(
    user_id: str | None,
    history: Sequence[Item] | None,
    adapter: Adapter | None,
    assignment_id: str | None,
    **others: Any,
) -> dict[str, Any]:
    chosen = {"user_id": user_id, "history": history, "adapter": adapter, "assignment_id": assignment_id}
    return given({**chosen, **others})


def rank(
    candidates: Sequence[Item],
    user_id: str | None,
    history: Sequence[Item] | None,
    adapter: Adapter | None,
    assignment_id: str | None,
) -> Call[Ranking]:
    """Return the call of `Client.rank`."""
    return Call("POST", "/v1/rank", Ranking, _ranked(user_id, history, adapter, assignment_id, candidates=candidates))


def recommend(
    user_id: str | None,
    history: Sequence[Item] | None,
    adapter: Adapter | None,
    top: int,
    where: Sequence[Condition],
    allow: Sequence[str] | None,
    deny: Sequence[str],
    at_most: Mapping[str, int],
    boost: Sequence[Mapping[str, Any]],
    assignment_id: str | None,
) -> Call[Ranking]:
    """Return the call of `Client.recommend`."""
    rules = {"top": top, "where": where, "allow": allow, "deny": deny, "at_most": at_most, "boost": boost}
    return Call("POST", "/v1/recommend", Ranking, _ranked(user_id, history, adapter, assignment_id, **rules))


def batches(path: str, requests: Sequence[Mapping[str, Any]]) -> Iterator[Call[BatchAnswers]]:
    """Return the calls of `Client.rank_many` and `Client.recommend_many`, each of which the service accepts.

    Raises:
        LorarecError: A value is not JSON.
    """
    batch: list[dict[str, Any]] = []
    size = 0
    for request in requests:
        length = len(encode_body(request))
        if batch and (len(batch) == MAX_BATCH or size + length > MAX_BATCH_BYTES):
            yield Call("POST", "/v1/batch", BatchAnswers, {"requests": batch})
            batch, size = [], 0
        batch.append({"path": path, "body": dict(request)})
        size += length
    if batch:
        yield Call("POST", "/v1/batch", BatchAnswers, {"requests": batch})


def batch_results(path: str, answers: BatchAnswers) -> list[Ranking | ServiceError]:
    """Return the rankings of a batch, with an error in the place of a request that was refused.

    Raises:
        ServiceError: A part of the answer is not of this API.
    """
    return [_batch_result(path, answer) for answer in answers.responses]


def _batch_result(path: str, answer: BatchedAnswer) -> Ranking | ServiceError:
    try:
        if answer.status == 200:
            return read_answer(Ranking, answer.body)
        detail, errors = _read_problem(answer.body)
        message, request_id = f"{path} answered {answer.status}: {detail}", answer.body.get("request_id")
    except UNREADABLE as error:
        raise other_answer(path, str(answer.body), answer.status, error, None) from error
    return ServiceError(message, answer.status, detail, errors, request_id, answer.retry_after)


def explain(
    item_id: str | None,
    candidates: Sequence[Item] | None,
    candidate: int | None,
    user_id: str | None,
    history: Sequence[Item] | None,
    adapter: Adapter | None,
    where: Sequence[Condition],
    allow: Sequence[str] | None,
    deny: Sequence[str],
    assignment_id: str | None,
) -> Call[ScoreExplanation]:
    """Return the call of `Client.explain`."""
    explained = {"item_id": item_id, "candidates": candidates, "candidate": candidate}
    rules = {"where": where or None, "allow": allow, "deny": deny or None}
    body = _ranked(user_id, history, adapter, assignment_id, **explained, **rules)
    return Call("POST", "/v1/explain", ScoreExplanation, body)


def rerank(
    query: str,
    documents: Sequence[str | Mapping[str, Any]],
    model: str | None,
    top_n: int | None,
    return_documents: bool,
) -> Call[Reranking]:
    """Return the call of `Client.rerank`."""
    body = {"query": query, "documents": documents, "model": model, "top_n": top_n}
    return Call("POST", "/v1/rerank", Reranking, given(body | {"return_documents": return_documents}))


def store_events(events: Sequence[Event], idempotency_key: str | None) -> Call[StoredEvents]:
    """Return the call of `Client.store_events`, which can be repeated if it has a key or each event has an id.

    Raises:
        LorarecError: The key has characters that no header can have.
    """
    body = {"events": [dict(each) for each in events]}
    if idempotency_key is not None and not (idempotency_key.isascii() and idempotency_key.isprintable()):
        raise LorarecError(f"idempotency_key must be printable ASCII characters, got {idempotency_key!r}")
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    repeatable = bool(headers) or all(event.get("event_id") is not None for event in events)
    return Call("POST", "/v1/events", StoredEvents, body, headers=headers, repeatable=repeatable)
