"""HTTP API that ranks and recommends with a language model and mixtures of LoRA adapters."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Path, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import AfterValidator
from starlette.middleware.cors import CORSMiddleware

from lorarec.io import versions
from lorarec.serving.adapter_schemas import AdapterDetails, AdapterInfo, AdaptersResponse, AliasResponse
from lorarec.serving.batch import BatchRequest, BatchResponse, answer_batch
from lorarec.serving.error_handlers import add_error_handlers, require_json
from lorarec.serving.error_responses import METRICS, NOT_ALIVE, NOT_READY, RANKING_ERRORS, error_responses
from lorarec.serving.errors import ClientDisconnected
from lorarec.serving.health import OK
from lorarec.serving.http_config import HttpConfig, require_key
from lorarec.serving.item_schemas import AddedItems, ChangeItemRequest, ItemDetails, ItemPath, NewItemsRequest
from lorarec.serving.keys import ApiKeys
from lorarec.serving.metrics import Metrics
from lorarec.serving.middleware import AuthMiddleware, MetricsMiddleware
from lorarec.serving.openapi import Application
from lorarec.serving.page import add_page
from lorarec.serving.pages import Cursor, link_next
from lorarec.serving.request_ids import REQUEST_ID, current_request_id
from lorarec.serving.rerank import (
    RerankRequest,
    RerankResponse,
    TextsRerankRequest,
    TextsRerankResult,
    rerank_response,
    texts_response,
)
from lorarec.serving.response_schemas import (
    EventsResponse,
    ExplainResponse,
    HealthResponse,
    ItemsPage,
    ItemsResponse,
    LivenessResponse,
    RankResponse,
    UsersResponse,
)
from lorarec.serving.responses import (
    adapter_details,
    adapter_info,
    adapters_response,
    item_details,
    items_response,
    stored_user,
)
from lorarec.serving.schemas import (
    AdapterLimit,
    AliasRequest,
    EventsRequest,
    ExplainRequest,
    IdempotencyKey,
    Limit,
    LoadAdapterRequest,
    RankRequest,
    RecommendRequest,
    SearchQuery,
    StoredUserId,
    UserId,
    refuse_nul,
)
from lorarec.serving.service import Service
from lorarec.serving.stored_items import StoredItem
from lorarec.serving.tracing import flush_traces
from lorarec.serving.user_schemas import DeletedUser, StoredUser

T = TypeVar("T")
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
AliasPath = Annotated[
    str,
    Path(min_length=1, max_length=500, description="Further name of an adapter.", examples=["prod"]),
    AfterValidator(refuse_nul),
]
AdapterPath = Annotated[str, Path(description="Name of a loaded adapter.", examples=["shop"])]
#: What web pages of allowed origins may send and read. They send the API key themselves, so no cookies are allowed.
CORS: dict[str, Any] = {
    "allow_methods": ("GET", "POST", "PUT", "PATCH", "DELETE"),
    "allow_headers": ("Authorization", "Content-Type", "Idempotency-Key", REQUEST_ID, "traceparent", "tracestate"),
    "expose_headers": (REQUEST_ID, "Retry-After"),
}
_JSON = [Depends(require_json)]


def create_app(service: Service, key: str | None = None, config: HttpConfig | None = None) -> FastAPI:
    """Create the ASGI application; it starts the service's queue and stops the service at the end.

    Args:
        service: Service that answers the requests.
        key: API key with all roles that clients send as `Authorization: Bearer KEY`; if None and there is no file of
            keys, only local hosts are answered.
        config: Options of the HTTP server; the default ones if None.

    Raises:
        LorarecError: If the file of keys cannot be used, or there are allowed origins and no keys.
    """
    config = config or HttpConfig()
    require_key("localhost", key, config)
    keys = ApiKeys(key, config.keys)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        watching = asyncio.create_task(keys.watch())
        yield
        watching.cancel()
        await service.stop()
        await flush_traces()

    # FastAPI's documentation pages are off because they load scripts from other hosts.
    app = Application(
        keys.required,
        title="lorarec",
        version=versions().get("lorarec", "unknown"),
        description=__doc__,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.root_path = config.root_path
    app.add_middleware(AuthMiddleware, keys=keys)
    if config.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=config.cors_origins, **CORS)
    app.add_middleware(MetricsMiddleware, metrics=service.metrics)
    add_error_handlers(app)
    add_page(app)

    @app.post("/v1/rank", responses=RANKING_ERRORS, dependencies=_JSON)
    async def rank(request: Request, body: RankRequest) -> RankResponse:
        """Rank candidates for a stored user or a history."""
        return await _while_connected(request, service.metrics, service.rank(body))

    # The clients of Cohere have one of the first two paths, by their version, and those of Jina and vLLM the first.
    @app.post("/v2/rerank", responses=RANKING_ERRORS, dependencies=_JSON, response_model_exclude_none=True)
    @app.post("/v1/rerank", responses=RANKING_ERRORS, dependencies=_JSON, response_model_exclude_none=True)
    async def rerank(request: Request, body: RerankRequest) -> RerankResponse:
        """Rank documents for a query that is a history, as Cohere, Jina and vLLM do.

        Both paths do the same.
        """
        ranked = await _while_connected(request, service.metrics, service.rerank(body))
        return rerank_response(body, ranked, str(current_request_id()))

    @app.post("/rerank", responses=RANKING_ERRORS, dependencies=_JSON, response_model_exclude_none=True)
    async def rerank_texts(request: Request, response: Response, body: TextsRerankRequest) -> list[TextsRerankResult]:
        """Rank texts for a query that is a history, as Text Embeddings Inference does.

        The header `X-Adapter-Versions` has the version of each adapter that answered, by name, as JSON, and `X-Variant`
        the variant of the experiment, if one answered.
        """
        ranked = await _while_connected(request, service.metrics, service.rerank(body))
        response.headers["X-Adapter-Versions"] = json.dumps(ranked.versions)
        if ranked.variant is not None:
            response.headers["X-Variant"] = ranked.variant
        return texts_response(body, ranked)

    @app.post("/v1/recommend", responses=RANKING_ERRORS, dependencies=_JSON)
    async def recommend(request: Request, body: RecommendRequest) -> RankResponse:
        """Recommend items of the catalogue that are not in the history."""
        return await _while_connected(request, service.metrics, service.recommend(body))

    @app.post("/v1/batch", responses=error_responses(415, 422), dependencies=_JSON)
    async def batch(request: Request, body: BatchRequest) -> BatchResponse:
        """Answer several requests for rankings and recommendations, each by a status of its own."""
        return await _while_connected(request, service.metrics, answer_batch(service, body))

    @app.post("/v1/explain", responses=RANKING_ERRORS, dependencies=_JSON)
    async def explain(request: Request, body: ExplainRequest) -> ExplainResponse:
        """Attribute a candidate's score to the items of the history, by leaving out each of them."""
        return await _while_connected(request, service.metrics, service.explain(body))

    @app.post("/v1/events", responses=error_responses(409, 415, 422, 429, 503), dependencies=_JSON)
    async def events(body: EventsRequest, idempotency_key: IdempotencyKey = None) -> EventsResponse:
        """Store interactions, which the next responses for their users take into account."""
        stored = await service.store(body, idempotency_key)
        return EventsResponse(stored=stored, known=len(body.events) - stored)

    @_readable(app, "/v1/items", responses=error_responses(422, 429))
    async def items(response: Response, query: SearchQuery = "", limit: Limit = 10, cursor: Cursor = None) -> ItemsPage:
        """Find items of the catalogue by words of their titles, best match first.

        Pages do not overlap, and no item is left out, while items are added or withdrawn.
        """
        page = await service.find_items(query, limit, cursor)
        link_next(response, page.next, query=query, limit=limit)
        return ItemsPage(items=items_response(page.entries, service.prompts).items, total=page.total, next=page.next)

    @app.post("/v1/items", responses=error_responses(409, 415, 422, 429, 503), dependencies=_JSON)
    async def add_items(body: NewItemsRequest) -> AddedItems:
        """Add items to the catalogue, which are ranked and recommended from then on as new items.

        An item that was withdrawn is recommended again. Other replicas know the items some seconds later.
        """
        items = [StoredItem(each.item_id, each.title, each.columns, withdrawn=False) for each in body.items]
        await service.catalogue.add(items)
        return AddedItems(added=len(items))

    @_readable(app, "/v1/items/{item_id:path}", responses=error_responses(404, 422))
    def describe_item(item_id: ItemPath) -> ItemDetails:
        """Describe an item of the catalogue, also a withdrawn one."""
        return item_details(item_id, service.catalogue)

    @app.patch("/v1/items/{item_id:path}", responses=error_responses(404, 415, 422, 429, 503), dependencies=_JSON)
    async def change_item(item_id: ItemPath, body: ChangeItemRequest) -> ItemDetails:
        """Change the title or columns of an item; what is not given stays as it is."""
        await service.catalogue.change(item_id, body.title, body.columns)
        return item_details(item_id, service.catalogue)

    @app.delete("/v1/items/{item_id:path}", status_code=204, responses=error_responses(404, 422, 429, 503))
    async def withdraw_item(item_id: ItemPath) -> None:
        """Withdraw an item, which is neither recommended nor found any more; histories keep it."""
        await service.catalogue.withdraw(item_id)

    @_readable(app, "/v1/users", responses=error_responses(422, 429, 503))
    async def users(
        response: Response, query: SearchQuery = "", limit: Limit = 10, cursor: Cursor = None
    ) -> UsersResponse:
        """Find users of the dataset by parts of their ids; users who are known from events only are not searched.

        Pages do not overlap, and no user is left out, while events arrive and users are deleted.
        """
        page = await service.find_users(query, limit, cursor)
        link_next(response, page.next, query=query, limit=limit)
        return UsersResponse(users=list(page.entries), total=page.total, next=page.next)

    @_readable(
        app, "/v1/users/{user_id:path}", response_model=StoredUser, responses=error_responses(404, 422, 429, 503)
    )
    async def export_user(user_id: StoredUserId) -> Response:
        """Export all that the database and the answer log hold of a user, oldest first."""
        exported = await service.users.export(user_id, partial(stored_user, user_id))
        return Response(exported, media_type="application/json")

    @app.delete("/v1/users/{user_id:path}", responses=error_responses(404, 422, 429, 503))
    async def delete_user(user_id: StoredUserId) -> DeletedUser:
        """Delete all that the database and the answer log hold of a user.

        The dataset and trained adapters stay as they are.
        """
        deleted, answers = await service.users.delete(user_id)
        return DeletedUser(deleted=deleted, answers=answers)

    @_readable(app, "/v1/history", responses=error_responses(404, 422, 429, 503))
    async def history(user_id: UserId, limit: Limit = 10) -> ItemsResponse:
        """List the items of a user's history, latest first."""
        return items_response(await service.latest_items(user_id, limit), service.prompts)

    @_readable(app, "/v1/adapters", responses=error_responses(422))
    def adapters(response: Response, limit: AdapterLimit = None, cursor: Cursor = None) -> AdaptersResponse:
        """List the loaded adapters and those that can be loaded by name, and describe the fusion.

        Pages do not overlap, and no adapter is left out, while others are loaded and unloaded.
        """
        listed = adapters_response(service.adapters, service.fusion, limit, cursor)
        link_next(response, listed.next, limit=limit)
        return listed

    @app.post("/v1/adapters", responses=error_responses(404, 409, 415, 422, 503), dependencies=_JSON)
    async def load(body: LoadAdapterRequest) -> AdapterInfo:
        """Load an adapter, or reload it; the other replicas of the database follow within seconds."""
        loaded = await service.announcements.load(body.name)
        return adapter_info(loaded, [body.name], service.adapters.previous.get(body.name))

    @app.post("/v1/adapters/{name}/rollback", responses=error_responses(404, 409, 422, 503))
    async def rollback(name: AdapterPath) -> AdapterInfo:
        """Put back the version of an adapter that the latest load replaced; a second call undoes the first.

        The version is in memory, so the adapter's folder may have changed. Requests that arrived before are still
        answered with the version that they began with. The other replicas of the database follow within seconds. A
        replica that starts later needs the version in the adapter's folder.
        """
        put_back = await service.announcements.roll_back(name)
        return adapter_info(put_back, service.adapters.available(), service.adapters.previous.get(name))

    @_readable(app, "/v1/adapters/{name}", responses=error_responses(404, 422, 503))
    def details(name: AdapterPath) -> AdapterDetails:
        """Describe a loaded adapter and what it was mixed from, layer by layer."""
        registry = service.adapters
        return adapter_details(registry.get(name, "name"), registry.available(), registry.previous.get(name))

    @app.delete("/v1/adapters/{name}", status_code=204, responses=error_responses(404, 409, 422, 429, 503))
    async def unload(name: AdapterPath) -> None:
        """Unload an adapter that no alias names; requests that arrived before are still answered with it.

        The other replicas of the database follow within seconds.
        """
        await service.aliases.unload(name, service.announcements.unload)

    @app.post("/v1/aliases", responses=error_responses(404, 409, 415, 422, 429, 503), dependencies=_JSON)
    async def point_alias(body: AliasRequest) -> AliasResponse:
        """Let a further name stand for a loaded adapter, or point it to another one.

        Requests that arrive afterwards get the new adapter, on other replicas some seconds later.
        """
        await service.aliases.point(body.alias, body.adapter)
        return AliasResponse(alias=body.alias, adapter=body.adapter)

    @app.delete("/v1/aliases/{alias:path}", status_code=204, responses=error_responses(404, 409, 422, 429, 503))
    async def delete_alias(alias: AliasPath) -> None:
        """Delete a further name of an adapter; the adapter stays loaded."""
        await service.aliases.delete(alias)

    @_readable(app, "/livez", responses=NOT_ALIVE)
    async def live(response: Response) -> LivenessResponse:
        """Check that no thread hangs, regardless of the database; if the check fails, restart the service."""
        response.status_code = 200 if service.alive else 503
        return LivenessResponse(status="ok" if service.alive else "stuck")

    @_readable(app, "/healthz", responses=NOT_READY)
    @_readable(app, "/readyz", responses=NOT_READY)
    async def ready(response: Response) -> HealthResponse:
        """Check that no thread hangs, that the database can be read and written, and that announcements are applied.

        Both paths return the same. They respond at once; the result of a slow check is in a later response.
        """
        database, is_live = await service.database.current(), service.alive
        is_ready = is_live and database == OK and service.announcements.applied
        response.status_code = 200 if is_ready else 503
        status = "ok" if is_ready else "degraded" if is_live else "stuck"
        return HealthResponse(
            status=status,
            database=database,
            adapters=len(service.adapters.loaded),
            unavailable=len(service.adapters.unavailable),
            fusion=service.fusion is not None,
        )

    @_readable(app, "/metrics", response_class=Response, responses=METRICS | error_responses())
    def metrics() -> Response:
        """Export metrics for Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _readable(app: FastAPI, path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
    """Return a decorator by which an endpoint answers GET, and HEAD with the same headers."""

    def register(endpoint: Endpoint) -> Endpoint:
        app.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False, **options)
        app.add_api_route(path, endpoint, methods=["GET"], **options)
        return endpoint

    return register


async def _while_connected(request: Request, metrics: Metrics, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine, which is cancelled and counted as dropped if the client disconnects first.

    Raises:
        ClientDisconnected: If the client disconnects first.
    """
    task = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        metrics.dropped.inc()
        raise ClientDisconnected
    finally:
        task.cancel()
        disconnect.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
