"""The application and its OpenAPI description: security, request ids, and the media type of errors."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import FastAPI
from starlette.types import ASGIApp

from lorarec.serving.adapter_schemas import AdapterDetails, AdapterInfo, AdaptersResponse
from lorarec.serving.batch import BatchResponse
from lorarec.serving.errors import PROBLEM
from lorarec.serving.item_schemas import ItemDetails
from lorarec.serving.middleware import PUBLIC_PATHS
from lorarec.serving.request_ids import REQUEST_ID, VALID_ID, RequestIdMiddleware
from lorarec.serving.request_json import JsonRoute
from lorarec.serving.response_schemas import ExplainResponse, ItemsPage, ProblemDetails, RankResponse, UsersResponse
from lorarec.serving.route_roles import required_role
from lorarec.serving.schema_parts import examples_of

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

#: Responses whose examples have null, which FastAPI leaves out.
_WITH_NULL = (
    AdapterDetails,
    AdapterInfo,
    AdaptersResponse,
    BatchResponse,
    ExplainResponse,
    ItemDetails,
    ItemsPage,
    RankResponse,
    UsersResponse,
)

_ID_SCHEMA = {"type": "string", "pattern": f"^{VALID_ID}$"}
_ID_PARAMETER = {
    "name": REQUEST_ID,
    "in": "header",
    "description": "Id of the request, which the response and the log repeat; one that is not well-formed is replaced.",
    "schema": {"type": "string"},
    "example": "checkout-7f3a",
}
_ID_HEADER = {
    "description": "Id of the request: that of the request's header, or a new one.",
    "schema": _ID_SCHEMA,
}


class Application(FastAPI):
    """FastAPI application whose responses all have a request id and whose errors are problem details.

    Args:
        needs_key: Whether all paths but the public ones need an API key.
        options: Options of FastAPI.
    """

    def __init__(self, needs_key: bool, **options: Any) -> None:
        # FastAPI's own traces have query strings, and with them the ids of users; the service makes traces without.
        super().__init__(**options, telemetry={"tracing": False, "metrics": False, "logs": False})
        self._needs_key = needs_key
        self.router.route_class = JsonRoute

    def readable(self, path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
        """Return a decorator by which an endpoint answers GET, and HEAD with the same headers."""

        def register(endpoint: Endpoint) -> Endpoint:
            self.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False, **options)
            self.add_api_route(path, endpoint, methods=["GET"], **options)
            return endpoint

        return register

    def build_middleware_stack(self) -> ASGIApp:
        """Return the application with its middleware; ids are outermost, so that unexpected errors have one too."""
        return RequestIdMiddleware(super().build_middleware_stack())

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI description, which is made once."""
        if self.openapi_schema is None:
            _complete(super().openapi(), self._needs_key)
        assert self.openapi_schema is not None
        return self.openapi_schema


def _complete(description: dict[str, Any], needs_key: bool) -> None:
    """Add to a description what FastAPI does not know: security, request ids, nulls, and the media type of errors."""
    if needs_key:
        key = {"type": "http", "scheme": "bearer", "description": "An API key with the role of the call, or admin."}
        description["components"]["securitySchemes"] = {"key": key}
    for model in _WITH_NULL:
        description["components"]["schemas"][model.__name__]["examples"] = examples_of(model)
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            if needs_key and path not in PUBLIC_PATHS:
                operation["security"] = [{"key": [required_role(method.upper(), path)]}]
            operation["parameters"] = [*operation.get("parameters", ()), _ID_PARAMETER]
            for response in operation["responses"].values():
                response["headers"] = {**response.get("headers", {}), REQUEST_ID: _ID_HEADER}
                _set_media_type(response.get("content", {}))


def _set_media_type(content: dict[str, Any]) -> None:
    """Give problem details their media type."""
    schema = content.get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith(f"/{ProblemDetails.__name__}"):
        content[PROBLEM] = content.pop("application/json")
