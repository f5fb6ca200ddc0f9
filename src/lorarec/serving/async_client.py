"""The client of a running service for asyncio."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from lorarec.serving import client_calls as calls
from lorarec.serving import resource_calls
from lorarec.serving.answers import (
    AdapterDetails,
    AdapterInfo,
    Adapters,
    Alias,
    CatalogueItem,
    Health,
    ItemDetails,
    ItemsPage,
    Ranking,
    Reranking,
    ScoreExplanation,
    StoredEvents,
    StoredUser,
    Users,
)
from lorarec.serving.client_calls import Adapter, Call, Condition, Event, Item, ServiceError
from lorarec.serving.client_options import ClientOptions

T = TypeVar("T")


class AsyncClient(ClientOptions):
    """A client of a running `lorarec serve` for asyncio, with the methods and retries of `Client`.

    Args:
        base_url: Address of the service.
        api_key: API key; None for the environment variable `LORAREC_API_KEY`, or no key if it is not set.
        timeout: Number of seconds to wait for an answer.
        retries: Maximum number of further attempts.
        transport: Transport of `httpx2`, for proxies and tests.

    Raises:
        LorarecError: An argument is out of range.

    Examples:
        >>> import asyncio
        >>> from lorarec import AsyncClient, LorarecError
        >>> async def ask():
        ...     async with AsyncClient("http://127.0.0.1:9", retries=0) as client:
        ...         users = ["u42", "u7"]
        ...         return await asyncio.gather(*(client.recommend(user_id=user) for user in users))
        >>> try:
        ...     rankings = asyncio.run(ask())
        ... except LorarecError as error:
        ...     print(error)  # doctest: +ELLIPSIS
        the service at http://127.0.0.1:9 cannot be reached (...): start it, or correct base_url
    """

    def __init__(
        self,
        base_url: str = "http://localhost:8000",
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, api_key, timeout, retries)
        self._http = httpx2.AsyncClient(transport=transport, **self._options)

    async def _send(self, call: Call[T]) -> T:
        request_id, attempt = uuid.uuid4().hex, 0
        request = self._request(call, request_id)
        while True:
            attempt += 1
            outcome: httpx2.Response | httpx2.RequestError
            try:
                outcome = await self._http.request(**request)
            except httpx2.RequestError as error:
                outcome = error
            wait = self._wait(call, attempt, outcome)
            if wait is None:
                return self._answer(call, outcome, request_id)
            await asyncio.sleep(wait)

    async def rank(
        self,
        candidates: Sequence[Item],
        *,
        user_id: str | None = None,
        history: Sequence[Item] | None = None,
        adapter: Adapter | None = None,
        assignment_id: str | None = None,
    ) -> Ranking:
        """Rank candidates for a stored user or a history; see `Client.rank`."""
        return await self._send(calls.rank(candidates, user_id, history, adapter, assignment_id))

    async def recommend(
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
        """Recommend items of the catalogue that are not in the history; see `Client.recommend`."""
        return await self._send(
            calls.recommend(user_id, history, adapter, top, where, allow, deny, at_most or {}, boost, assignment_id)
        )

    async def rank_many(self, requests: Sequence[Mapping[str, Any]]) -> list[Ranking | ServiceError]:
        """Answer several requests of `rank` in few calls of the service; see `Client.rank_many`."""
        return await self._send_many("/v1/rank", requests)

    async def recommend_many(self, requests: Sequence[Mapping[str, Any]]) -> list[Ranking | ServiceError]:
        """Answer several requests of `recommend` in few calls of the service; see `Client.rank_many`."""
        return await self._send_many("/v1/recommend", requests)

    async def _send_many(self, path: str, requests: Sequence[Mapping[str, Any]]) -> list[Ranking | ServiceError]:
        results: list[Ranking | ServiceError] = []
        for call in calls.batches(path, requests):
            results += calls.batch_results(path, await self._send(call))
        return results

    async def explain(
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
        """Attribute a score to the items of the history; see `Client.explain`."""
        return await self._send(
            calls.explain(item_id, candidates, candidate, user_id, history, adapter, where, allow, deny, assignment_id)
        )

    async def rerank(
        self,
        query: str,
        documents: Sequence[str | Mapping[str, Any]],
        *,
        model: str | None = None,
        top_n: int | None = None,
        return_documents: bool = False,
    ) -> Reranking:
        """Rank documents, whose texts are titles, for a query; see `Client.rerank`."""
        return await self._send(calls.rerank(query, documents, model, top_n, return_documents))

    async def store_events(self, events: Sequence[Event], *, idempotency_key: str | None = None) -> StoredEvents:
        """Store interactions, all or none; see `Client.store_events`."""
        return await self._send(calls.store_events(events, idempotency_key))

    async def items(self, query: str = "", limit: int = 10) -> list[CatalogueItem]:
        """Find items of the catalogue by words of their titles, best match first; see `Client.items`."""
        return (await self._send(resource_calls.items(query, limit))).items

    async def item_pages(self, query: str = "", limit: int = 100) -> AsyncIterator[ItemsPage]:
        """Find all items of the catalogue by words of their titles, page by page; see `Client.item_pages`."""
        page = await self._send(resource_calls.items(query, limit))
        yield page
        while page.next is not None:
            page = await self._send(resource_calls.items(query, limit, page.next))
            yield page

    async def item(self, item_id: str) -> ItemDetails:
        """Describe an item of the catalogue; see `Client.item`."""
        return await self._send(resource_calls.item(item_id))

    async def add_items(self, items: Sequence[Mapping[str, Any]]) -> int:
        """Add items to the catalogue, all or none; see `Client.add_items`."""
        return (await self._send(resource_calls.add_items(items))).added

    async def change_item(
        self, item_id: str, *, title: str | None = None, columns: Mapping[str, Any] | None = None
    ) -> ItemDetails:
        """Change the title or columns of an item; see `Client.change_item`."""
        return await self._send(resource_calls.change_item(item_id, title, columns or {}))

    async def withdraw_item(self, item_id: str) -> None:
        """Withdraw an item; see `Client.withdraw_item`."""
        await self._send(resource_calls.withdraw_item(item_id))

    async def users(self, query: str = "", limit: int = 10) -> list[str]:
        """Find users of the dataset by parts of their ids; see `Client.users`."""
        return (await self._send(resource_calls.users(query, limit))).users

    async def user_pages(self, query: str = "", limit: int = 100) -> AsyncIterator[Users]:
        """Find all users of the dataset by parts of their ids, page by page; see `Client.user_pages`."""
        page = await self._send(resource_calls.users(query, limit))
        yield page
        while page.next is not None:
            page = await self._send(resource_calls.users(query, limit, page.next))
            yield page

    async def history(self, user_id: str, limit: int = 10) -> list[CatalogueItem]:
        """List the items of a user's stored history, latest first; see `Client.history`."""
        return (await self._send(resource_calls.history(user_id, limit))).items

    async def stored_user(self, user_id: str) -> StoredUser:
        """Export all that the service stores of a user; see `Client.stored_user`."""
        return await self._send(resource_calls.stored_user(user_id))

    async def delete_user(self, user_id: str) -> int:
        """Delete all that the service stores of a user; see `Client.delete_user`."""
        return (await self._send(resource_calls.delete_user(user_id))).deleted

    async def adapters(self) -> Adapters:
        """List the loaded adapters and those that can be loaded, and describe the fusion; see `Client.adapters`."""
        return await self._send(resource_calls.adapters())

    async def adapter_pages(self, limit: int = 100) -> AsyncIterator[Adapters]:
        """List all adapters in the order of their names, page by page; see `Client.adapter_pages`."""
        page = await self._send(resource_calls.adapters(limit))
        yield page
        while page.next is not None:
            page = await self._send(resource_calls.adapters(limit, page.next))
            yield page

    async def adapter(self, name: str) -> AdapterDetails:
        """Describe a loaded adapter; see `Client.adapter`."""
        return await self._send(resource_calls.adapter(name))

    async def load_adapter(self, name: str) -> AdapterInfo:
        """Load an adapter, or reload it; see `Client.load_adapter`."""
        return await self._send(resource_calls.load_adapter(name))

    async def rollback_adapter(self, name: str) -> AdapterInfo:
        """Put back the version that the latest load replaced; see `Client.rollback_adapter`."""
        return await self._send(resource_calls.rollback_adapter(name))

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter; see `Client.unload_adapter`."""
        await self._send(resource_calls.unload_adapter(name))

    async def set_alias(self, alias: str, adapter: str) -> Alias:
        """Let a further name stand for a loaded adapter, or point it to another one; see `Client.set_alias`."""
        return await self._send(resource_calls.set_alias(alias, adapter))

    async def delete_alias(self, alias: str) -> None:
        """Delete a further name of an adapter; see `Client.delete_alias`."""
        await self._send(resource_calls.delete_alias(alias))

    async def health(self) -> Health:
        """Return whether the service can answer every request; see `Client.health`."""
        return await self._send(resource_calls.health())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
