"""JSON of requests, which is refused where parsers differ in what they make of it."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

from lorarec.serving.errors import ApiError

#: Maximum number of digits of an integer; the largest that a request needs has 19.
MAX_DIGITS = 4000
#: Maximum number of characters that an error repeats of a name.
MAX_NAME = 100


class JsonRequest(Request):
    """A request whose body is parsed by `parse_json`."""

    async def json(self) -> Any:
        """Return the body.

        Raises:
            ApiError: As for `parse_json`.
            JSONDecodeError: If it is not JSON.
        """
        return parse_json(await self.body())


class JsonRoute(APIRoute):
    """A route whose requests are `JsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """Return the function that answers a request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(JsonRequest(request.scope, request.receive))

        return handle


def parse_json(body: bytes) -> Any:
    """Parse a body.

    Examples:
        >>> parse_json(b'{"top": 5}')
        {'top': 5}
        >>> try:
        ...     parse_json(b'{"top": 5, "top": 10}')
        ... except ApiError as error:
        ...     print(error)
        the body has two members with the name 'top' in one object: give each name once

    Raises:
        ApiError: 400, if an object has a name twice, or a number is not one of JSON or has too many digits.
        JSONDecodeError: If the body is not JSON.
    """
    return json.loads(body, object_pairs_hook=_members, parse_constant=_refuse_constant, parse_int=_integer)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ApiError(
            400, f"the body has two members with the name {twice[:MAX_NAME]!r} in one object: give each name once"
        )
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ApiError(400, f"the body is not JSON: it has {name}, which is no number of JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ApiError(400, f"the body has a number of {len(digits)} digits: no request needs that")
    return int(digits)
