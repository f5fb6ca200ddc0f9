"""The role that a key needs for each route: the one place where rights are written down."""

from collections.abc import Iterable

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from lorarec.serving.keys import Role

#: Role that a key needs, by method and path of the route. HEAD needs that of GET. The export of a user is personal data
#: and a deletion cannot be undone, so a key that stores events has neither.
ROUTE_ROLES: dict[tuple[str, str], Role] = {
    ("POST", "/v1/rank"): "read",
    ("POST", "/v1/rerank"): "read",
    ("POST", "/v2/rerank"): "read",
    ("POST", "/rerank"): "read",
    ("POST", "/v1/recommend"): "read",
    ("POST", "/v1/batch"): "read",
    ("POST", "/v1/explain"): "read",
    ("GET", "/v1/items"): "read",
    ("GET", "/v1/users"): "read",
    ("GET", "/v1/history"): "read",
    ("GET", "/v1/adapters"): "read",
    ("GET", "/v1/adapters/{name}"): "read",
    ("GET", "/metrics"): "read",
    ("GET", "/openapi.json"): "read",
    ("POST", "/v1/events"): "events",
    ("GET", "/v1/users/{user_id:path}"): "admin",
    ("DELETE", "/v1/users/{user_id:path}"): "admin",
    ("POST", "/v1/adapters"): "admin",
    ("DELETE", "/v1/adapters/{name}"): "admin",
    ("POST", "/v1/adapters/{name}/rollback"): "admin",
    ("GET", "/v1/items/{item_id:path}"): "read",
    ("POST", "/v1/items"): "admin",
    ("PATCH", "/v1/items/{item_id:path}"): "admin",
    ("DELETE", "/v1/items/{item_id:path}"): "admin",
    ("POST", "/v1/aliases"): "admin",
    ("DELETE", "/v1/aliases/{alias:path}"): "admin",
}


def required_role(method: str, path: str) -> Role:
    """Return the role that a key needs for a route; one that is not listed needs `admin`."""
    return ROUTE_ROLES.get(("GET" if method == "HEAD" else method, path), "admin")


def find_route(routes: Iterable[BaseRoute], scope: Scope) -> tuple[str | None, bool]:
    """Return the path of the route that answers a request, and whether it has the method of the request.

    Returns:
        The path as the route defines it, such as `/v1/adapters/{name}`; None if there is no such route.
    """
    other: str | None = None
    for route in routes:
        match, _ = route.matches(scope)
        path = getattr(route, "path", None)
        if match == Match.FULL:
            return path, True
        if match == Match.PARTIAL and other is None:
            other = path
    return other, False
