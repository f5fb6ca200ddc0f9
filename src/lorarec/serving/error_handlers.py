"""Handlers that turn exceptions of an application into problem details."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from lorarec.serving.database import database_error
from lorarec.serving.errors import ApiError, ClientDisconnected, Fault

#: Maximum number of characters that an error repeats of the path of a field, which a client can make up.
MAX_FIELD = 100
#: Names that pydantic adds to the path of a field whose type is a union.
TYPE_NAMES = ("bool", "float", "int", "str")

logger = logging.getLogger(__name__)


def add_error_handlers(app: FastAPI) -> None:
    """Let an application answer every exception with problem details."""

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return error.response

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        if found[0]["type"] == "json_invalid":
            position, reason = found[0]["loc"][-1], found[0]["ctx"]["error"]
            return ApiError(400, f"the body is not JSON: {reason} at character {position}").response
        return ApiError(422, faults=validation_faults(found)).response

    @app.exception_handler(HTTPException)
    async def http_exception(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, ApiError):  # FastAPI wraps what is raised while a body is parsed
            return error.__cause__.response
        if error.status_code == 404:
            return ApiError(404, "there is no such path: GET /openapi.json lists all").response
        if error.status_code == 405:
            allowed = ", ".join(_allowed_methods(request))
            return ApiError(405, f"this path accepts {allowed} only", headers={"Allow": allowed}).response
        return ApiError(error.status_code, error.detail, headers=error.headers).response

    @app.exception_handler(SQLAlchemyError)
    async def sql_error(_: Request, error: SQLAlchemyError) -> Response:
        return unreachable_database(error).response

    @app.exception_handler(Exception)
    async def unexpected_error(_: Request, error: Exception) -> Response:
        # Uvicorn closes the connection after an unexpected error; a client must know before it sends its next request.
        message = "internal error: see the log of the service"
        return ApiError(500, message, headers={"Connection": "close"}).response

    @app.exception_handler(ClientDisconnected)
    async def client_disconnected(_: Request, error: ClientDisconnected) -> Response:
        return Response(status_code=499)


def unreachable_database(error: SQLAlchemyError) -> ApiError:
    """Log an error of the database and return that of the request."""
    logger.warning("the database cannot be used: %s", str(error).splitlines()[0])
    return database_error()


async def require_json(request: Request) -> None:
    """Refuse a body that is not JSON by its media type, or empty.

    Raises:
        ApiError: 415, if the media type is another one; 400, if there is no body.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise ApiError(
            415,
            "the body is not JSON: send it with Content-Type: application/json",
            headers={"Accept": "application/json"},
        )
    if not (await request.body()).strip():
        raise ApiError(400, "the body is empty: send JSON")


#: Dependencies of routes whose requests have a body.
JSON_BODY = [Depends(require_json)]


def validation_faults(errors: Sequence[Any]) -> list[Fault]:
    """Return what is wrong with a request, one fault for each field, in the order of pydantic's errors.

    Where a field has alternatives, pydantic reports an error for each. Those of the alternative that the client meant
    are deeper than the others, which are left out.
    """
    faults: dict[tuple[str, ...], Any] = {}
    for error in errors:
        faults.setdefault(_field_path(error["loc"]), error)
    inner = {path[:depth] for path in faults for depth in range(len(path))}
    # An empty path is not above the others: it is that of the request, whose fields are alternatives of nothing.
    outermost = [path for path in faults if not path or path not in inner]
    return [Fault(_message(faults[path]), ".".join(path)[:MAX_FIELD] or None) for path in outermost]


def _message(error: Any) -> str:
    """Return pydantic's message without the name of the type of exception."""
    return str(error["msg"]).removeprefix("Value error, ")


def _field_path(location: tuple[Any, ...]) -> tuple[str, ...]:
    """Return the parts of a field's path, as in `candidates.3`, without pydantic's names for alternative types."""
    parts = (str(part) for part in location[1:] if isinstance(part, int) or (part.isidentifier() and part.islower()))
    return tuple(part for part in parts if part not in TYPE_NAMES)


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods of all routes with the path of a request."""
    scope = request.scope
    matching = (route for route in request.app.routes if route.matches(scope)[0] != Match.NONE)
    return sorted({method for route in matching for method in getattr(route, "methods", None) or ()})
