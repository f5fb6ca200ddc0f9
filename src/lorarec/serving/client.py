"""The client of a running service."""

import time
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from lorarec.serving import client_calls as calls
from lorarec.serving import resource_calls
from lorarec.serving.answers import (
    CatalogueItem,
    Ranking,
    Reranking,
    ScoreExplanation,
    StoredEvents,
    StoredUser,
)
from lorarec.serving.client_calls import Adapter, Call, Condition, Event, Item, ServiceError
from lorarec.serving.client_resources import ClientResources

T = TypeVar("T")


class Client(ClientResources):
    """A client of a running `lorarec serve`. Thread-safe.

    A request is sent again, after twice as long a wait each time or after the time that the service asks for
    (`Retry-After`), if the service is overloaded, its database cannot be reached or the connection broke. Events
    without an `event_id` or a key are sent once, since the service may have stored them before the connection broke.

    Args:
        base_url: Address of the service.
        api_key: API key; None for the environment variable `LORAREC_API_KEY`, or no key if it is not set.
        timeout: Number of seconds to wait for an answer.
        retries: Maximum number of further attempts.
        transport: Transport of `httpx2`, for proxies and tests.

    Raises:
        LorarecError: An argument is out of range.

    Examples:
        >>> from lorarec import Client, LorarecError
        >>> with Client("http://127.0.0.1:9", retries=0) as client:
        ...     try:
        ...         ranking = client.rank(["i1", "i2"], user_id="u42", adapter={"general": 0.3, "shop": 0.7})
        ...     except LorarecError as error:
        ...         print(error)  # doctest: +ELLIPSIS
        the service at http://127.0.0.1:9 cannot be reached (...): start it, or correct base_url
    """

    def __init__(
        self,
        base_url: str = "http://localhost:8000",
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, api_key, timeout, retries)
        self._http = httpx2.Client(transport=transport, **self._options)

    def _send(self, call: Call[T]) -> T:
        request_id, attempt = uuid.uuid4().hex, 0
        request = self._request(call, request_id)
        while True:
            attempt += 1
            outcome: httpx2.Response | httpx2.RequestError
            try:
                outcome = self._http.request(**request)
            except httpx2.RequestError as error:
                outcome = error
            wait = self._wait(call, attempt, outcome)
            if wait is None:
                return self._answer(call, outcome, request_id)
            time.sleep(wait)

    def rank(
        self,
        candidates: Sequence[Item],
        *,
        user_id: str | None = None,
        history: Sequence[Item] | None = None,
        adapter: Adapter | None = None,
        assignment_id: str | None = None,
    ) -> Ranking:
        """Rank candidates for a stored user or a history.

        Args:
            candidates: Item ids of the catalogue, or `{"title": ...}`, in any order.
            user_id: Id of the user whose stored history is read, in place of `history`.
            history: Item ids or `{"title": ...}`, oldest first. With a `timestamp` of each, as in `{"item_id": "i7",
                "timestamp": 1764115200}`, it is used as the stored history of a new user.
            adapter: Name or alias of an adapter, or weights by name that sum to 1; None for the variant of the
                experiment, the fusion, the default or the only adapter.
            assignment_id: Id by which a request with a history is assigned to a variant of the experiment, such as that
                of a session; None for the first variant. Requests with `user_id` are assigned by that.

        Raises:
            ServiceError: The service refuses the request or cannot be reached.
        """
        return self._send(calls.rank(candidates, user_id, history, adapter, assignment_id))

    def recommend(
        self,
        *,
        user_id: str | None = None,
        history: Sequence[Item] | None = None,
        adapter: Adapter | None = None,
        top: int = 10,
        where: Sequence[Condition] = (),
        allow: Sequence[str] | None = None,
        deny: Sequence[str] = (),
        at_most: Mapping[str, int] | None = None,
        boost: Sequence[Mapping[str, Any]] = (),
        assignment_id: str | None = None,
    ) -> Ranking:
        """Recommend items of the catalogue that are not in the history.

        Args:
            user_id: Id of the user whose stored history is read, in place of `history`.
            history: As for `rank`.
            adapter: As for `rank`.
            top: Number of items.
            where: Conditions `{"column": ..., "op": ..., "value": ...}` that all items match.
            allow: Ids of the only items that may be recommended; None for all.
            deny: Ids of items that must not be recommended.
            at_most: Maximum number of items with the same value in a column, by column.
            boost: Numbers to add to the scores of items, as `{"where": condition, "add": number}`.
            assignment_id: As for `rank`.

        Raises:
            ServiceError: As for `rank`.
        """
        return self._send(
            calls.recommend(user_id, history, adapter, top, where, allow, deny, at_most or {}, boost, assignment_id)
        )

    def rank_many(self, requests: Sequence[Mapping[str, Any]]) -> list[Ranking | ServiceError]:
        """Answer several requests of `rank` in few calls of the service.

        Args:
            requests: The arguments of `rank` by name for each request, such as `{"user_id": "u42", "candidates":
                ["i1"]}`.

        Returns:
            The ranking of each request, in their order. In the place of a request that is refused is its error, which
            is not raised; a request for which the service was too busy has `retry_after`.

        Raises:
            ServiceError: The service refuses a whole call or cannot be reached.
        """
        return self._send_many("/v1/rank", requests)

    def recommend_many(self, requests: Sequence[Mapping[str, Any]]) -> list[Ranking | ServiceError]:
        """Answer several requests of `recommend` in few calls of the service; see `rank_many`.

        Raises:
            ServiceError: As for `rank_many`.
        """
        return self._send_many("/v1/recommend", requests)

    def _send_many(self, path: str, requests: Sequence[Mapping[str, Any]]) -> list[Ranking | ServiceError]:
        results: list[Ranking | ServiceError] = []
        for call in calls.batches(path, requests):
            results += calls.batch_results(path, self._send(call))
        return results

    def explain(
        self,
        item_id: str | None = None,
        *,
        candidates: Sequence[Item] | None = None,
        candidate: int | None = None,
        user_id: str | None = None,
        history: Sequence[Item] | None = None,
        adapter: Adapter | None = None,
        where: Sequence[Condition] = (),
        allow: Sequence[str] | None = None,
        deny: Sequence[str] = (),
        assignment_id: str | None = None,
    ) -> ScoreExplanation:
        """Attribute a score to the items of the history: that of a recommendation, or of one of given candidates.

        Args:
            item_id: Id of the recommended item; None for the best one.
            candidates: Candidates of `rank`, in place of `item_id`.
            candidate: Index of the explained candidate; None for the first.
            user_id: As for `rank`.
            history: As for `rank`.
            adapter: As for `rank`.
            where: As for `recommend`.
            allow: As for `recommend`.
            deny: As for `recommend`.
            assignment_id: As for `rank`.

        Raises:
            ServiceError: As for `rank`.
        """
        return self._send(
            calls.explain(item_id, candidates, candidate, user_id, history, adapter, where, allow, deny, assignment_id)
        )

    def rerank(
        self,
        query: str,
        documents: Sequence[str | Mapping[str, Any]],
        *,
        model: str | None = None,
        top_n: int | None = None,
        return_documents: bool = False,
    ) -> Reranking:
        """Rank documents, whose texts are titles, for a query, as the clients of Cohere and Jina do.

        Args:
            query: Titles of the history, one per line, oldest first.
            documents: Titles, or `{"text": title}`.
            model: Name of an adapter, or `fusion`; None for the fusion or the only adapter.
            top_n: Maximum number of results; None for all documents.
            return_documents: Whether results have the documents.

        Raises:
            ServiceError: As for `rank`.
        """
        return self._send(calls.rerank(query, documents, model, top_n, return_documents))

    def store_events(self, events: Sequence[Event], *, idempotency_key: str | None = None) -> StoredEvents:
        """Store interactions, all or none.

        Args:
            events: Dictionaries with `user_id` and `item_id`, and optionally `timestamp` and `event_id`. If each has an
                `event_id`, the request can be sent again, and the service stores an event once.
            idempotency_key: Key of the request, which does the same for events without an `event_id`.

        Raises:
            ServiceError: As for `rank`; status 409 if an `event_id` is that of another event of the user.
        """
        return self._send(calls.store_events(events, idempotency_key))

    def history(self, user_id: str, limit: int = 10) -> list[CatalogueItem]:
        """List the items of a user's stored history, latest first.

        Raises:
            ServiceError: As for `rank`; status 404 if the user has no history.
        """
        return self._send(resource_calls.history(user_id, limit)).items

    def stored_user(self, user_id: str) -> StoredUser:
        """Export all that the service stores of a user.

        Raises:
            ServiceError: As for `rank`; status 404 if nothing is stored.
        """
        return self._send(resource_calls.stored_user(user_id))

    def delete_user(self, user_id: str) -> int:
        """Delete all that the service stores of a user and return the number of interactions. The request is sent once.

        Raises:
            ServiceError: As for `rank`; status 404 if nothing is stored.
        """
        return self._send(resource_calls.delete_user(user_id)).deleted

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
