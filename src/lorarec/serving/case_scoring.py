"""Scores of the cases of requests, by adapters or by the fusion, which share the passes of the model."""

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from lorarec.errors import LorarecError
from lorarec.ranking import FusedScores
from lorarec.serving.adapter_registry import AdapterRegistry
from lorarec.serving.batcher import Batcher
from lorarec.serving.engine import LoadedAdapter, Mixture, ScoringRequest
from lorarec.serving.errors import ApiError
from lorarec.serving.fusion import ServedFusion, refuse_titles
from lorarec.serving.health import WatchedThread
from lorarec.serving.metrics import Metrics
from lorarec.serving.request_prompts import RequestCase, RequestPrompts

#: Adapter that a request names, or weights by name; None for the fusion or the only loaded adapter.
AdapterName = str | dict[str, float] | None


class CaseScorer:
    """Score cases: build their prompts in one thread and queue them for the model.

    Args:
        prompts: Builder of prompts.
        adapters: Registry of the adapters.
        batcher: Queue in front of the model.
        prompt_thread: Thread that builds all prompts, since tokenizers are not thread-safe.
        fusion_thread: Thread of the fusion.
        metrics: Counters of the service.
    """

    def __init__(
        self,
        prompts: RequestPrompts,
        adapters: AdapterRegistry,
        batcher: Batcher,
        prompt_thread: WatchedThread,
        fusion_thread: WatchedThread,
        metrics: Metrics,
    ) -> None:
        self._prompts = prompts
        self._adapters = adapters
        self._batcher = batcher
        self._prompt_thread = prompt_thread
        self._fusion_thread = fusion_thread
        self._metrics = metrics

    async def fuse(
        self, fusion: ServedFusion, cases: Sequence[RequestCase], pool: bool
    ) -> tuple[list[FusedScores], int]:
        """Score cases with the same candidates by the fusion, whose adapters share the batches of other requests.

        Returns:
            The scores of each case, and the number of tokens that the adapters read.

        Raises:
            ApiError: If a candidate is given by its title, the candidates do not fit into a prompt, or the queue is
                full.
        """
        refuse_titles(cases[0])
        loop = asyncio.get_running_loop()

        def prepare() -> list[ScoringRequest]:
            # Those behind the first have shortened histories, which are not asked for again.
            return [
                self._prompts.scoring_request(case, mixture, cached=case is cases[0])
                for case in cases
                for mixture in fusion.mixtures
            ]

        try:
            with self._metrics.stage("prompt"):
                requests = await loop.run_in_executor(self._prompt_thread, prepare)
        except LorarecError as error:
            raise ApiError(422, str(error), "candidates") from error
        scores = await self._batcher.score(requests) if requests else []  # a fusion may have no adapters
        count = len(fusion.mixtures)
        fused = []
        for place, case in enumerate(cases):
            own = scores[place * count : (place + 1) * count]
            try:
                with self._metrics.fusion_seconds.time(), self._metrics.stage("fusion"):
                    fused.append(await loop.run_in_executor(self._fusion_thread, fusion.score, case, own, pool))
            except LorarecError as error:  # such as a new item, which a fusion without hidden items cannot score
                raise ApiError(422, str(error)) from error
            self._metrics.fused.inc()
        return fused, _tokens(requests)

    async def score(
        self,
        case: RequestCase,
        adapter: AdapterName,
        build: Callable[[RequestCase, Mixture], list[ScoringRequest]],
    ) -> tuple[list[np.ndarray], Mixture, int]:
        """Score the requests that are built from a case.

        Args:
            case: History and candidates.
            adapter: Adapter or mixture that the client asks for.
            build: Function that builds the requests.

        Returns:
            The scores (candidates,) of each request, the mixture that scored them, and the number of tokens that it
            read.

        Raises:
            ApiError: If an adapter is not loaded, or the candidates do not fit into a prompt.
        """

        def prepare(weights: dict[LoadedAdapter, float]) -> tuple[list[ScoringRequest], Mixture]:
            mixture = self._prompts.mixture(case, weights)
            return build(case, mixture), mixture

        loop = asyncio.get_running_loop()
        while True:
            weights = self._adapters.weights(adapter)
            try:
                with self._metrics.stage("prompt"):
                    requests, mixture = await loop.run_in_executor(self._prompt_thread, prepare, weights)
            except LorarecError as error:
                raise ApiError(422, str(error), "candidates") from error
            # An adapter may have been unloaded or replaced meanwhile. After this check the queue preserves the order.
            if self._adapters.are_current(weights):
                return await self._batcher.score(requests), mixture, _tokens(requests)


def _tokens(requests: Sequence[ScoringRequest]) -> int:
    """Return the number of tokens of prompts and candidates."""
    return sum(request.example.length for request in requests)
