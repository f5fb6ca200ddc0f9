"""Pages of lists: each begins after the last entry of the one before, wherever entries were added or removed since."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlencode

from fastapi import Query, Response

from lorarec.serving.errors import ApiError

T = TypeVar("T")
#: Sort key of an entry of a list, as values of JSON.
SortKey = Sequence[Any]

Cursor = Annotated[
    str | None,
    Query(
        max_length=10_000,
        description="`next` of the page before, with the same query; without it, the first page is returned.",
        examples=["WyJzaG9wIl0"],
    ),
]


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of a list.

    Attributes:
        entries: Entries of the page.
        total: Number of entries of the whole list.
        next: Cursor of the next page; None if there is none.
    """

    entries: Sequence[T]
    total: int
    next: str | None


def write_cursor(key: SortKey) -> str:
    """Return the cursor of the page after an entry, from the entry's sort key."""
    return base64.urlsafe_b64encode(json.dumps(list(key)).encode()).decode().rstrip("=")


def read_cursor(cursor: str, types: Sequence[type]) -> SortKey:
    """Return the sort key of a cursor.

    Args:
        cursor: The cursor.
        types: Types of the values of the key.

    Raises:
        ApiError: 422, if `write_cursor` has not written it for such a list.
    """
    try:
        key = json.loads(base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), b"-_", validate=True))
        is_valid = isinstance(key, list) and [type(value) for value in key] == list(types)
        is_valid = is_valid and all(_is_storable(value) for value in key)
    except (ValueError, RecursionError):
        is_valid = False
    if not is_valid:
        raise ApiError(422, "this is no cursor of this list: give `next` of the page before, or none", "cursor")
    return key


def _is_storable(value: str | int) -> bool:
    """Return whether a data frame can hold a value: an integer of 64 bits, or text without surrogates."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    value.encode()  # a ValueError if it holds surrogates
    return True


def link_next(response: Response, cursor: str | None, **query: str | int | None) -> None:
    """Add a `Link` to the next page to a response, if there is one; it is relative to the request's own path."""
    if cursor is not None:
        given = {name: value for name, value in query.items() if value is not None}
        response.headers["Link"] = f'<?{urlencode(given | {"cursor": cursor})}>; rel="next"'
