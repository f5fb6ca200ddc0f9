"""Routes of the API that score: rankings, recommendations and explanations."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response

from lorarec.serving.batch import BatchRequest, BatchResponse, answer_batch
from lorarec.serving.error_handlers import JSON_BODY
from lorarec.serving.error_responses import RANKING_ERRORS, error_responses
from lorarec.serving.errors import ClientDisconnected
from lorarec.serving.metrics import Metrics
from lorarec.serving.openapi import Application
from lorarec.serving.request_ids import current_request_id
from lorarec.serving.rerank import (
    AnyRerankRequest,
    RerankRequest,
    RerankResponse,
    TextsRerankResult,
    rerank_response,
    texts_response,
)
from lorarec.serving.response_schemas import ExplainResponse, RankResponse
from lorarec.serving.schemas import ExplainRequest, RankRequest, RecommendRequest
from lorarec.serving.service import Service

T = TypeVar("T")


def add_ranking_routes(app: Application, service: Service) -> None:
    """Add the routes that score to an application."""

    @app.post("/v1/rank", responses=RANKING_ERRORS, dependencies=JSON_BODY)
    async def rank(request: Request, body: RankRequest) -> RankResponse:
        """Rank candidates for a stored user or a history."""
        return await _while_connected(request, service.metrics, service.rank(body))

    # The clients of Cohere have one of the first two paths, by their version, and those of Jina and vLLM the first.
    @app.post("/v2/rerank", responses=RANKING_ERRORS, dependencies=JSON_BODY, response_model_exclude_none=True)
    @app.post("/v1/rerank", responses=RANKING_ERRORS, dependencies=JSON_BODY, response_model_exclude_none=True)
    async def rerank(request: Request, body: RerankRequest) -> RerankResponse:
        """Rank documents for a query that is a history, as Cohere, Jina and vLLM do.

        Both paths do the same.
        """
        ranked = await _while_connected(request, service.metrics, service.rerank(body))
        return rerank_response(body, ranked, str(current_request_id()))

    @app.post("/rerank", responses=RANKING_ERRORS, dependencies=JSON_BODY, response_model_exclude_none=True)
    async def rerank_texts(
        request: Request, response: Response, body: AnyRerankRequest
    ) -> list[TextsRerankResult] | RerankResponse:
        """Rank texts for a query that is a history, as Text Embeddings Inference does.

        A request with `documents` is answered as by `/v1/rerank`, since vLLM has its API at this path too. For texts,
        the header `X-Adapter-Versions` has the version of each adapter that answered, by name, as JSON, and `X-Variant`
        the variant of the experiment, if one answered.
        """
        if isinstance(body, RerankRequest):
            return await rerank(request, body)
        ranked = await _while_connected(request, service.metrics, service.rerank(body))
        response.headers["X-Adapter-Versions"] = json.dumps(ranked.versions)
        if ranked.variant is not None:
            response.headers["X-Variant"] = ranked.variant
        return texts_response(body, ranked)

    @app.post("/v1/recommend", responses=RANKING_ERRORS, dependencies=JSON_BODY)
    async def recommend(request: Request, body: RecommendRequest) -> RankResponse:
        """Recommend items of the catalogue that are not in the history."""
        return await _while_connected(request, service.metrics, service.recommend(body))

    @app.post("/v1/batch", responses=error_responses(415, 422), dependencies=JSON_BODY)
    async def batch(request: Request, body: BatchRequest) -> BatchResponse:
        """Answer several requests for rankings and recommendations, each by a status of its own."""
        return await _while_connected(request, service.metrics, answer_batch(service, body))

    @app.post("/v1/explain", responses=RANKING_ERRORS, dependencies=JSON_BODY)
    async def explain(request: Request, body: ExplainRequest) -> ExplainResponse:
        """Attribute a candidate's score to the items of the history, by leaving out each of them."""
        return await _while_connected(request, service.metrics, service.explain(body))


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
