"""Calls of the client about items, users, adapters and the health of a service."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

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
    Users,
)
from lorarec.serving.client_calls import Call
from lorarec.serving.client_options import ClientOptions

T = TypeVar("T")


class ClientResources(ClientOptions):
    """Calls that `Client` inherits."""

    def _send(self, call: Call[T]) -> T:
        """Send a call and return its answer."""
        raise NotImplementedError

    def items(self, query: str = "", limit: int = 10) -> list[CatalogueItem]:
        """Find items of the catalogue by words of their titles, best match first.

        Raises:
            ServiceError: As for `rank`.
        """
        return self._send(resource_calls.items(query, limit)).items

    def item_pages(self, query: str = "", limit: int = 100) -> Iterator[ItemsPage]:
        """Find all items of the catalogue by words of their titles, page by page.

        Raises:
            ServiceError: As for `rank`.
        """
        page = self._send(resource_calls.items(query, limit))
        yield page
        while page.next is not None:
            page = self._send(resource_calls.items(query, limit, page.next))
            yield page

    def item(self, item_id: str) -> ItemDetails:
        """Describe an item of the catalogue, also a withdrawn one.

        Raises:
            ServiceError: As for `rank`; status 404 if there is no such item.
        """
        return self._send(resource_calls.item(item_id))

    def add_items(self, items: Sequence[Mapping[str, Any]]) -> int:
        """Add items to the catalogue, all or none, and return their number. The request is sent once.

        Args:
            items: Dictionaries with `item_id` and `title`, and optionally `columns`: values by column of the items.

        Raises:
            ServiceError: As for `rank`; status 409 if an item exists.
        """
        return self._send(resource_calls.add_items(items)).added

    def change_item(
        self, item_id: str, *, title: str | None = None, columns: Mapping[str, Any] | None = None
    ) -> ItemDetails:
        """Change the title or columns of an item; what is not given stays as it is.

        Raises:
            ServiceError: As for `rank`; status 404 if there is no such item.
        """
        return self._send(resource_calls.change_item(item_id, title, columns or {}))

    def withdraw_item(self, item_id: str) -> None:
        """Withdraw an item, which is not recommended any more; histories keep it. The request is sent once.

        Raises:
            ServiceError: As for `rank`; status 404 if there is no such item.
        """
        self._send(resource_calls.withdraw_item(item_id))

    def users(self, query: str = "", limit: int = 10) -> list[str]:
        """Find users of the dataset by parts of their ids.

        Raises:
            ServiceError: As for `rank`.
        """
        return self._send(resource_calls.users(query, limit)).users

    def user_pages(self, query: str = "", limit: int = 100) -> Iterator[Users]:
        """Find all users of the dataset by parts of their ids, page by page.

        Raises:
            ServiceError: As for `rank`.
        """
        page = self._send(resource_calls.users(query, limit))
        yield page
        while page.next is not None:
            page = self._send(resource_calls.users(query, limit, page.next))
            yield page

    def adapters(self) -> Adapters:
        """List the loaded adapters and those that can be loaded, and describe the fusion.

        Raises:
            ServiceError: As for `rank`.
        """
        return self._send(resource_calls.adapters())

    def adapter_pages(self, limit: int = 100) -> Iterator[Adapters]:
        """List all adapters in the order of their names, page by page.

        Raises:
            ServiceError: As for `rank`.
        """
        page = self._send(resource_calls.adapters(limit))
        yield page
        while page.next is not None:
            page = self._send(resource_calls.adapters(limit, page.next))
            yield page

    def adapter(self, name: str) -> AdapterDetails:
        """Describe a loaded adapter.

        Raises:
            ServiceError: As for `rank`; status 404 if the adapter is not loaded.
        """
        return self._send(resource_calls.adapter(name))

    def load_adapter(self, name: str) -> AdapterInfo:
        """Load an adapter, or reload it.

        Raises:
            ServiceError: As for `rank`; status 404 if there is no such adapter, 422 if it cannot be used.
        """
        return self._send(resource_calls.load_adapter(name))

    def rollback_adapter(self, name: str) -> AdapterInfo:
        """Put back the version of an adapter that the latest load replaced. The request is sent once.

        Raises:
            ServiceError: As for `rank`; status 404 if the adapter is not loaded, 409 if it has no previous version.
        """
        return self._send(resource_calls.rollback_adapter(name))

    def unload_adapter(self, name: str) -> None:
        """Unload an adapter. The request is sent once.

        Raises:
            ServiceError: As for `rank`; status 404 if the adapter is not loaded, 409 if an alias names it.
        """
        self._send(resource_calls.unload_adapter(name))

    def set_alias(self, alias: str, adapter: str) -> Alias:
        """Let a further name stand for a loaded adapter, or point it to another one.

        Raises:
            ServiceError: As for `rank`; status 404 if the adapter is not loaded, 409 if the alias names an adapter.
        """
        return self._send(resource_calls.set_alias(alias, adapter))

    def delete_alias(self, alias: str) -> None:
        """Delete a further name of an adapter. The request is sent once.

        Raises:
            ServiceError: As for `rank`; status 404 if there is no such alias.
        """
        self._send(resource_calls.delete_alias(alias))

    def health(self) -> Health:
        """Return whether the service can answer every request. The request is sent once.

        Raises:
            ServiceError: The service cannot be reached.
        """
        return self._send(resource_calls.health())
