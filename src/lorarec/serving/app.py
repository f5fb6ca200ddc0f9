"""The HTTP API over a `Service`."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from lorarec.lora import made_for
from lorarec.serving.database import unreachable
from lorarec.serving.engine import LoadedAdapter
from lorarec.serving.errors import ApiError, ClientDisconnected
from lorarec.serving.explanations import explain as explain_candidate
from lorarec.serving.health import OK
from lorarec.serving.middleware import AuthMiddleware, MetricsMiddleware
from lorarec.serving.page import add_page
from lorarec.serving.registry import ADAPTER, PERSONAL
from lorarec.serving.requests import (
    AdapterName,
    EventsRequest,
    ExplainRequest,
    Limit,
    RankRequest,
    RecommendRequest,
    UserId,
    Words,
)
from lorarec.serving.responses import (
    AdapterDetails,
    AdaptersResponse,
    AdapterState,
    ErrorResponse,
    EventsResponse,
    ExplainResponse,
    FoundItem,
    Health,
    ItemsResponse,
    Liveness,
    RankResponse,
    UsersResponse,
)
from lorarec.serving.scores import layer_weights
from lorarec.serving.service import Service

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_DESCRIPTIONS: dict[int | str, str] = {
    400: "The body cannot be read",
    401: "No key or a wrong one",
    403: "The service has no key, and a web page of another origin sends the request",
    404: "No such user or adapter",
    408: "The body did not arrive in time",
    413: "The body is too large",
    422: "A field is wrong",
    429: "Too many requests are waiting; Retry-After says when to come back",
    503: "The database cannot be reached",
    "livez": "A thread is stuck",
    "readyz": "The database cannot be used, or a thread is stuck",
}
#: Characters of a field's place that an answer repeats.
MAX_FIELD = 200
#: What the guard answers on any path that needs a key.
_EVERYWHERE = (400, 401, 403, 408, 413)


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": ErrorResponse, "description": _DESCRIPTIONS[status]} for status in (*_EVERYWHERE, *statuses)
    }


def create_app(service: Service, key: str | None = None) -> FastAPI:
    """The ASGI application; it starts the service's queue and stops the service at its end.

    Args:
        key: what clients must send as `Authorization: Bearer KEY`; without it only local hosts are answered.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await service.stop()

    # The bundled pages of documentation load scripts from elsewhere.
    app = FastAPI(
        title="lorarec", lifespan=lifespan, redirect_slashes=False, docs_url=None, redoc_url=None, description=__doc__
    )
    app.add_middleware(AuthMiddleware, key=key)
    app.add_middleware(MetricsMiddleware, metrics=service.metrics)
    _add_handlers(app)
    add_page(app)

    @app.post("/v1/rank", responses=_refusals(404, 422, 429, 503))
    async def rank(request: Request, body: RankRequest) -> RankResponse:
        """Rank candidates for a stored user or a history."""
        return await _while_connected(request, service.rank(body))

    @app.post("/v1/recommend", responses=_refusals(404, 422, 429, 503))
    async def recommend(request: Request, body: RecommendRequest) -> RankResponse:
        """Recommend items of the whole catalogue that the history does not have."""
        return await _while_connected(request, service.recommend(body))

    @app.post("/v1/explain", responses=_refusals(404, 422, 429, 503))
    async def explain(request: Request, body: ExplainRequest) -> ExplainResponse:
        """Tell what each item of the history adds to a candidate's score, by leaving it out."""
        return await _while_connected(request, explain_candidate(service, body))

    @app.post("/v1/events", responses=_refusals(422, 429, 503))
    async def events(body: EventsRequest) -> EventsResponse:
        """Store interactions; the user's next answer reads them."""
        stored = await service.store(body)
        return EventsResponse(stored=stored, known=len(body.events) - stored)

    @app.get("/v1/items", responses=_refusals(422, 429))
    async def items(query: Words = "", limit: Limit = 10) -> ItemsResponse:
        """Find items of the catalogue by words of their titles, best match first."""
        return _items(service, await service.find_items(query, limit))

    @app.get("/v1/users", responses=_refusals(422, 429))
    async def users(query: Words = "", limit: Limit = 10) -> UsersResponse:
        """Find users of the dataset by parts of their ids; those whom only events told of are not among them."""
        return UsersResponse(users=await service.find_users(query, limit))

    @app.get("/v1/history", responses=_refusals(404, 422, 429, 503))
    async def history(user_id: UserId, limit: Limit = 10) -> ItemsResponse:
        """List what a user chose, latest first."""
        return _items(service, await service.latest(user_id, limit))

    @app.get("/v1/adapters", responses=_refusals())
    def adapters() -> AdaptersResponse:
        """List the adapters in memory and those that can be loaded."""
        available = service.shelf.available()
        loaded = [_state(one, available) for one in service.shelf.loaded.values()]
        return AdaptersResponse(loaded=loaded, available=list(available), kinds=available)

    @app.post("/v1/adapters", responses=_refusals(404, 422))
    async def load(body: AdapterName) -> AdapterState:
        """Load an adapter of the adapters folder, or read it anew."""
        return _state(await service.shelf.load(body.name, service.batcher), [body.name])

    @app.get("/v1/adapters/{name}", responses=_refusals(404, 422))
    def details(name: str) -> AdapterDetails:
        """Tell what a loaded adapter was mixed from, layer by layer."""
        one = service.shelf.find(name, "name")
        return AdapterDetails(
            **_state(one, service.shelf.available()).model_dump(),
            user_id=None if one.chooser else made_for(one.parts[0]),
            layers=layer_weights(one),
        )

    @app.delete("/v1/adapters/{name}", status_code=204, responses=_refusals(404, 422))
    async def unload(name: str) -> None:
        """Unload an adapter; requests that came before are still answered with it."""
        await service.shelf.unload(name, service.batcher)

    @app.head("/livez", include_in_schema=False)
    @app.get("/livez", responses={503: {"model": Liveness, "description": _DESCRIPTIONS["livez"]}})
    async def live(response: Response) -> Liveness:
        """Whether the threads that answer requests work, whatever the database does: restart the service if not."""
        response.status_code = 200 if service.alive else 503
        return Liveness(status="ok" if service.alive else "stuck")

    @app.head("/healthz", include_in_schema=False)
    @app.head("/readyz", include_in_schema=False)
    @app.get("/healthz", responses={503: {"model": Health, "description": _DESCRIPTIONS["readyz"]}})
    @app.get("/readyz", responses={503: {"model": Health, "description": _DESCRIPTIONS["readyz"]}})
    async def ready(response: Response) -> Health:
        """Whether any request can be answered: the service is alive, and its database can be read and written.

        The two paths are the same. They answer at once; a later answer has the result of a slow check.
        """
        database, is_live = await service.database.now(), service.alive
        is_ready = is_live and database == OK
        response.status_code = 200 if is_ready else 503
        status = "ok" if is_ready else "degraded" if is_live else "stuck"
        return Health(status=status, database=database, adapters=len(service.shelf.loaded))

    @app.get("/metrics", response_class=Response, responses=_refusals())
    def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _items(service: Service, found: list[str]) -> ItemsResponse:
    return ItemsResponse(items=[FoundItem(item_id=item, title=service.prompting.title(item)) for item in found])


def _state(one: LoadedAdapter, available: Collection[str]) -> AdapterState:
    return AdapterState(
        name=one.name,
        kind=PERSONAL if one.chooser else ADAPTER,
        fingerprint=one.fingerprint,
        rank=max(rank for part in one.parts for rank in part.ranks.values()),
        readout=one.prompt.readout,
        in_folder=one.name in available,
    )


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns, unless the client leaves before: then it is cancelled."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnected
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def problem(_: Request, error: ApiError) -> Response:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        # Where a field has alternatives, the error that lies deepest is of the one that was meant.
        deepest = max(error.errors(), key=lambda found: len(_place(found["loc"])))
        field = ".".join(_place(deepest["loc"]))[:MAX_FIELD]  # a client can make up any
        return JSONResponse(ApiError(422, deepest["msg"], field or None).body, 422)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return JSONResponse(ApiError(error.status_code, error.detail).body, error.status_code, error.headers)

    @app.exception_handler(SQLAlchemyError)
    async def database(_: Request, error: SQLAlchemyError) -> Response:
        _LOG.warning("the database cannot be used: %s", str(error).splitlines()[0])
        problem = unreachable()
        return JSONResponse(problem.body, problem.status, problem.headers)

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        return JSONResponse(ApiError(500, "this should not have happened: the server's log tells more").body, 500)

    @app.exception_handler(ClientDisconnected)
    async def left(_: Request, error: ClientDisconnected) -> Response:
        return Response(status_code=499)


def _place(location: tuple[Any, ...]) -> list[str]:
    """The parts of a field's place as in `candidates.3`, without pydantic's names for the alternatives of a field."""
    parts = [str(part) for part in location[1:] if isinstance(part, int) or (part.isidentifier() and part.islower())]
    return [part for part in parts if part != "str"]
