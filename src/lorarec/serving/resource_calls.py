"""Calls of the service's API about items, users, adapters and its health, as its clients send them."""

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any
from urllib.parse import quote

from lorarec.errors import LorarecError
from lorarec.serving.answers import (
    AdapterDetails,
    AdapterInfo,
    Adapters,
    AddedItems,
    Alias,
    CatalogueItems,
    DeletedUser,
    Health,
    ItemDetails,
    ItemsPage,
    StoredUser,
    Users,
)
from lorarec.serving.client_calls import Call, given


def items(query: str, limit: int, cursor: str | None = None) -> Call[ItemsPage]:
    """Return the call of `Client.items`, and that of one page of `Client.item_pages`."""
    return Call("GET", "/v1/items", ItemsPage, query=given({"query": query, "limit": limit, "cursor": cursor}))


def item(item_id: str) -> Call[ItemDetails]:
    """Return the call of `Client.item`."""
    return Call("GET", _item_path(item_id), ItemDetails)


def add_items(items: Sequence[Mapping[str, Any]]) -> Call[AddedItems]:
    """Return the call of `Client.add_items`, which contradicts itself if it is repeated."""
    return Call("POST", "/v1/items", AddedItems, {"items": [dict(each) for each in items]}, repeatable=False)


def change_item(item_id: str, title: str | None, columns: Mapping[str, Any]) -> Call[ItemDetails]:
    """Return the call of `Client.change_item`."""
    return Call("PATCH", _item_path(item_id), ItemDetails, given({"title": title, "columns": dict(columns)}))


def withdraw_item(item_id: str) -> Call[None]:
    """Return the call of `Client.withdraw_item`, which finds nothing if it is repeated."""
    return Call("DELETE", _item_path(item_id), NoneType, repeatable=False)


def users(query: str, limit: int, cursor: str | None = None) -> Call[Users]:
    """Return the call of `Client.users`, and that of one page of `Client.user_pages`."""
    return Call("GET", "/v1/users", Users, query=given({"query": query, "limit": limit, "cursor": cursor}))


def history(user_id: str, limit: int) -> Call[CatalogueItems]:
    """Return the call of `Client.history`."""
    return Call("GET", "/v1/history", CatalogueItems, query={"user_id": user_id, "limit": limit})


def stored_user(user_id: str) -> Call[StoredUser]:
    """Return the call of `Client.stored_user`."""
    return Call("GET", _user_path(user_id), StoredUser)


def delete_user(user_id: str) -> Call[DeletedUser]:
    """Return the call of `Client.delete_user`, which finds nothing if it is repeated."""
    return Call("DELETE", _user_path(user_id), DeletedUser, repeatable=False)


def adapters(limit: int | None = None, cursor: str | None = None) -> Call[Adapters]:
    """Return the call of `Client.adapters`, and that of one page of `Client.adapter_pages`."""
    return Call("GET", "/v1/adapters", Adapters, query=given({"limit": limit, "cursor": cursor}))


def adapter(name: str) -> Call[AdapterDetails]:
    """Return the call of `Client.adapter`."""
    return Call("GET", _adapter_path(name), AdapterDetails)


def load_adapter(name: str) -> Call[AdapterInfo]:
    """Return the call of `Client.load_adapter`."""
    return Call("POST", "/v1/adapters", AdapterInfo, {"name": name})


def unload_adapter(name: str) -> Call[None]:
    """Return the call of `Client.unload_adapter`, which is not found if it is repeated."""
    return Call("DELETE", _adapter_path(name), NoneType, repeatable=False)


def set_alias(alias: str, adapter: str) -> Call[Alias]:
    """Return the call of `Client.set_alias`."""
    return Call("POST", "/v1/aliases", Alias, {"alias": alias, "adapter": adapter})


def delete_alias(alias: str) -> Call[None]:
    """Return the call of `Client.delete_alias`, which is not found if it is repeated."""
    return Call("DELETE", f"/v1/aliases/{_quoted(alias)}", NoneType, repeatable=False)


def rollback_adapter(name: str) -> Call[AdapterInfo]:
    """Return the call of `Client.rollback_adapter`, which would undo itself if it were repeated."""
    return Call("POST", f"{_adapter_path(name)}/rollback", AdapterInfo, repeatable=False)


def health() -> Call[Health]:
    """Return the call of `Client.health`, whose answer is that the service is not ready rather than an error."""
    return Call("GET", "/readyz", Health, repeatable=False, accepted=(503,))


def _item_path(item_id: str) -> str:
    return f"/v1/items/{_quoted(item_id)}"


def _user_path(user_id: str) -> str:
    return f"/v1/users/{_quoted(user_id)}"


def _adapter_path(name: str) -> str:
    return f"/v1/adapters/{_quoted(name)}"


def _quoted(text: str) -> str:
    """Return an id as the last part of a path; the ids `.` and `..` would be removed from a path as they are.

    Raises:
        LorarecError: The id is no text that UTF-8 can encode.
    """
    try:
        quoted = quote(text, safe="")
    except (TypeError, UnicodeEncodeError) as error:
        raise LorarecError(f"{text!r} cannot be an id: {error}") from error
    return quoted.replace(".", "%2E") if text in (".", "..") else quoted
