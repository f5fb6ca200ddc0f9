"""Routes of the API for adapters and their aliases."""

from fastapi import Response

from lorarec.serving.adapter_schemas import (
    AdapterDetails,
    AdapterInfo,
    AdapterLimit,
    AdapterPath,
    AdaptersResponse,
    AliasPath,
    AliasRequest,
    AliasResponse,
    LoadAdapterRequest,
)
from lorarec.serving.error_handlers import JSON_BODY
from lorarec.serving.error_responses import error_responses
from lorarec.serving.openapi import Application
from lorarec.serving.pages import Cursor, link_next
from lorarec.serving.responses import adapter_details, adapter_info, adapters_response
from lorarec.serving.service import Service


def add_adapter_routes(app: Application, service: Service) -> None:
    """Add the routes of adapters to an application."""

    @app.readable("/v1/adapters", responses=error_responses(422))
    def adapters(response: Response, limit: AdapterLimit = None, cursor: Cursor = None) -> AdaptersResponse:
        """List the loaded adapters and those that can be loaded by name, and describe the fusion.

        Pages do not overlap, and no adapter is left out, while others are loaded and unloaded.
        """
        listed = adapters_response(service.adapters, service.fusion, limit, cursor)
        link_next(response, listed.next, limit=limit)
        return listed

    @app.post("/v1/adapters", responses=error_responses(404, 409, 415, 422, 503), dependencies=JSON_BODY)
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

    @app.readable("/v1/adapters/{name}", responses=error_responses(404, 422, 503))
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

    @app.post("/v1/aliases", responses=error_responses(404, 409, 415, 422, 429, 503), dependencies=JSON_BODY)
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
