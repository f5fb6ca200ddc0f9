"""HTTP API that ranks and recommends with a language model and mixtures of LoRA adapters."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from lorarec.io import versions
from lorarec.serving.adapter_routes import add_adapter_routes
from lorarec.serving.cors import CorsMiddleware
from lorarec.serving.error_handlers import add_error_handlers
from lorarec.serving.error_responses import METRICS, NOT_ALIVE, NOT_READY, error_responses
from lorarec.serving.health import OK
from lorarec.serving.http_config import HttpConfig, require_key
from lorarec.serving.item_routes import add_item_routes
from lorarec.serving.keys import ApiKeys
from lorarec.serving.middleware import AuthMiddleware, MetricsMiddleware
from lorarec.serving.openapi import Application
from lorarec.serving.page import add_page
from lorarec.serving.ranking_routes import add_ranking_routes
from lorarec.serving.request_ids import REQUEST_ID
from lorarec.serving.response_schemas import HealthResponse, LivenessResponse
from lorarec.serving.service import Service
from lorarec.serving.tracing import flush_traces
from lorarec.serving.user_routes import add_user_routes

#: What web pages of allowed origins may send and read. They send the API key themselves, so no cookies are allowed.
CORS: dict[str, Any] = {
    "allow_methods": ("GET", "POST", "PUT", "PATCH", "DELETE"),
    "allow_headers": ("Authorization", "Content-Type", "Idempotency-Key", REQUEST_ID, "traceparent", "tracestate"),
    "expose_headers": (REQUEST_ID, "Retry-After", "Link", "X-Adapter-Versions", "X-Variant"),
}


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
        app.add_middleware(CorsMiddleware, allow_origins=config.cors_origins, **CORS)
    app.add_middleware(MetricsMiddleware, metrics=service.metrics)
    add_error_handlers(app)
    add_page(app)
    add_ranking_routes(app, service)
    add_item_routes(app, service)
    add_user_routes(app, service)
    add_adapter_routes(app, service)
    _add_health_routes(app, service)
    return app


def _add_health_routes(app: Application, service: Service) -> None:
    """Add the routes of health checks and metrics to an application."""

    @app.readable("/livez", responses=NOT_ALIVE)
    async def live(response: Response) -> LivenessResponse:
        """Check that no thread hangs and the model works, regardless of the database; if not, restart the service."""
        response.status_code = 200 if service.alive else 503
        return LivenessResponse(status="ok" if service.alive else "stuck")

    @app.readable("/healthz", responses=NOT_READY)
    @app.readable("/readyz", responses=NOT_READY)
    async def ready(response: Response) -> HealthResponse:
        """Check that no thread hangs, the model works, the database can be written, and announcements are applied.

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

    @app.readable("/metrics", response_class=Response, responses=METRICS | error_responses())
    def metrics() -> Response:
        """Export metrics for Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
