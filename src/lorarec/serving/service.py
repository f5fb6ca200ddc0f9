"""The service behind the HTTP API."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from lorarec.backbone import Backbone
from lorarec.data import ITEM, USER, Dataset
from lorarec.errors import LorarecError
from lorarec.ranking import Fusion, log_prior, refuse_other_dataset
from lorarec.retrieval import Index
from lorarec.scoring import tokens_per_pass
from lorarec.serving.adapter_registry import AdapterRegistry
from lorarec.serving.aliases import Aliases
from lorarec.serving.announcements import AdapterAnnouncements
from lorarec.serving.answer_log import AnswerLog
from lorarec.serving.assignments import Assignments
from lorarec.serving.batcher import Batcher
from lorarec.serving.case_scoring import AdapterName, CaseScorer
from lorarec.serving.catalogue import Catalogue, CatalogueView
from lorarec.serving.config import ServiceConfig
from lorarec.serving.database import SHARED_LIMIT, SHARED_THREADS, DatabaseCalls
from lorarec.serving.engine import MultiAdapterEngine
from lorarec.serving.errors import ApiError, FaultCollector
from lorarec.serving.experiment import Experiment
from lorarec.serving.fusion import FUSION, ServedFusion
from lorarec.serving.health import DatabaseState, WatchedThread
from lorarec.serving.histories import Histories
from lorarec.serving.metrics import Metrics
from lorarec.serving.pages import Page
from lorarec.serving.prompt_cache import PromptCache
from lorarec.serving.refresher import Refresher
from lorarec.serving.request_cases import RequestCases
from lorarec.serving.request_prompts import RequestCase, RequestPrompts, leave_one_out_cases
from lorarec.serving.request_rules import request_rules
from lorarec.serving.rerank import RerankRequest, TextsRerankRequest, rerank_case
from lorarec.serving.response_schemas import ExplainResponse, RankResponse
from lorarec.serving.responses import (
    empty_response,
    explain_response,
    fused_response,
    rank_response,
    recommend_response,
)
from lorarec.serving.schemas import ExplainRequest, RankRequest, RecommendRequest
from lorarec.serving.search import TextSearch
from lorarec.serving.shadow import ShadowScorer
from lorarec.serving.stored_users import StoredUsers

#: Seconds that the service waits for its threads to end.
STOP_SECONDS = 3.0
#: Seconds of building the prompts of one request after which the thread counts as stuck.
STUCK_SECONDS = 60.0
#: Number of items in the history, and among the candidates, of the request that measures the speed of the model.
MEASURED_ITEMS = 20


class Service:
    """Rank, recommend and explain for stored users or given histories with the adapters of a folder.

    Args:
        backbone: Language model.
        dataset: Catalogue, and the first histories.
        adapters_folder: Folder of PEFT folders and of folders of `train_user_router`; None for no adapters but those of
            the fusion.
        database: URL of the database of the histories (see `Histories`).
        config: Options; the default ones if None.
        index: Index of the dataset; if None, that of the fusion or one without a next-item model is built.
        load: Names of the adapters to load; None for all.
        fusion: Fusion that answers requests that name no adapter, or None.
        further_adapters: Paths or hub ids of further adapters, by the names that requests have.
        experiment: Experiment whose variants answer requests that name no adapter, or None.
        answer_log: Folder of the log of answers, or None.

    Attributes:
        adapters: Registry of the adapters.
        announcements: Changes of the adapters, which all replicas of the database apply.
        aliases: Aliases of the adapters in the database.
        catalogue: Catalogue of the dataset and of calls.
        fusion: Fusion that answers requests that name no adapter, or None.
        prompts: Builder of prompts, which is used by the thread of prompts only.
        batcher: Queue in front of the model.
        database: State of the database.
        histories: Histories of the users in the database.
        users: Stored users, as requests read and change them.
        metrics: Counters for Prometheus.

    Raises:
        LorarecError: If the folder does not exist, the fusion belongs to another dataset, or an adapter, the fusion or
            the database is not usable.
    """

    def __init__(
        self,
        backbone: Backbone,
        dataset: Dataset,
        adapters_folder: Path | None,
        database: str,
        config: ServiceConfig | None = None,
        index: Index | None = None,
        load: Sequence[str] | None = None,
        fusion: Fusion | None = None,
        further_adapters: Mapping[str, str] | None = None,
        experiment: Experiment | None = None,
        answer_log: Path | None = None,
    ) -> None:
        config = config or ServiceConfig()
        if fusion:
            refuse_other_dataset(fusion, dataset)
        if config.default_adapter is not None and (fusion or experiment):
            raise LorarecError(
                "option default_adapter is of no use with a fusion or an experiment, which answers requests that name "
                "no adapter: leave one of them out"
            )
        self._pool = config.pool
        self.metrics = Metrics(by_variant=experiment is not None)
        self.fusion = ServedFusion(fusion) if fusion else None
        permanent = list(self.fusion.adapters.values()) if self.fusion else []
        self._prompt_cache = PromptCache(config.prompt_cache * 2**20, self.metrics)
        self._engine = MultiAdapterEngine(backbone, config.combine, permanent, config.instances, self._prompt_cache)
        wait, max_wait = config.wait_ms / 1000, config.max_wait
        token_budget = tokens_per_pass(backbone.model, config.token_budget)
        self.batcher = Batcher(self._engine.scorers(), token_budget, wait, config.queue, self.metrics, max_wait)
        self.adapters = AdapterRegistry(
            adapters_folder, self._engine, self.batcher, dataset, self.metrics, further_adapters
        )
        self.histories = Histories(database)
        self.histories.fill(dataset)
        self._answer_log = AnswerLog(answer_log, self.metrics) if answer_log else None
        engine, self._shared_calls = self.histories.engine, DatabaseCalls(SHARED_THREADS, SHARED_LIMIT, self.metrics)
        self.announcements = AdapterAnnouncements(engine, self._shared_calls, self.adapters)
        self.announcements.load_initial(load)
        self._shadow = ShadowScorer(self.batcher, self.metrics)
        self._assignments = Assignments(experiment, self._answer_log, self._shadow)
        self._assignments.require_answers(self.adapters, fusion is not None)
        self.prompts = RequestPrompts(backbone, dataset)
        self.prompts.make_evidence(self.adapters.loaded.values())
        self._measure_speed(dataset)
        # Tokenizers are not thread-safe, so one thread builds all prompts.
        self._prompt_thread = WatchedThread("prompts", STUCK_SECONDS)
        self._fusion_thread = WatchedThread("fusion", STUCK_SECONDS)
        self._scorer = CaseScorer(
            self.prompts, self.adapters, self.batcher, self._prompt_thread, self._fusion_thread, self.metrics
        )
        index = index or (fusion.index() if fusion else Index.build(dataset))
        user_ids = dataset.interactions[USER].unique(maintain_order=True)
        self._user_search = TextSearch(user_ids, user_ids)
        self.aliases = Aliases(engine, self._shared_calls, self.adapters)
        self.aliases.load(config.default_adapter)
        self.catalogue = Catalogue(dataset, index, engine, self._shared_calls, self.prompts, self._prompt_thread)
        self.catalogue.load()
        remove_unused = partial(asyncio.to_thread, self._prompt_cache.remove_unused)
        self._refresher = Refresher([self.aliases.refresh, self.catalogue.refresh, remove_unused, self.batcher.recheck])
        self.database = DatabaseState(self.histories)
        self.users = StoredUsers(self.histories, self.prompts, config.queue, self.metrics, self._answer_log)
        self._cases = RequestCases(self.prompts, self.users, self.adapters, self.fusion is not None)

    def _measure_speed(self, dataset: Dataset) -> None:
        """Let the batcher measure the speed of the model by a request for the first adapter, or for the backbone.

        The same request for the backbone alone, which no change of adapters affects, shows later whether it works.
        """
        items = dataset.items[ITEM].head(MEASURED_ITEMS).to_list()
        case = RequestCase(None, items, items)
        served = self.fusion.adapters if self.fusion else self.adapters.loaded
        mixture = self.prompts.mixture(case, dict.fromkeys(list(served.values())[:1], 1.0))
        with suppress(LorarecError):  # a prompt that the adapter cannot have
            self.batcher.measure_speed(self.prompts.scoring_request(case, mixture, cached=False))
            plain = self.prompts.mixture(case, {})
            self.batcher.check_with(self.prompts.scoring_request(case, plain, cached=False))

    @property
    def alive(self) -> bool:
        """Whether the model works, and the threads of prompts, of the model and of the fusion work or are idle."""
        is_working = self.batcher.alive and self.batcher.works
        return is_working and not self._prompt_thread.stuck and not self._fusion_thread.stuck

    def start(self) -> None:
        """Start to answer requests and to apply announcements; an event loop must be running."""
        self.batcher.start()
        self.announcements.start()
        self._refresher.start()

    async def stop(self) -> None:
        """Answer what is queued, then end all threads and connections; what hangs is not waited for."""
        await self.announcements.stop()
        await self._refresher.stop()
        self._shadow.close()
        self._prompt_thread.shutdown(wait=False, cancel_futures=True)
        self._fusion_thread.shutdown(wait=False, cancel_futures=True)
        self.users.close()
        self._shared_calls.close()
        self.database.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.batcher.stop()
                if self._answer_log:
                    await asyncio.to_thread(self._answer_log.close)
                await asyncio.to_thread(self.histories.close)
        except TimeoutError:
            return  # the worker thread may still use the model
        self._engine.close()

    async def rank(self, request: RankRequest) -> RankResponse:
        """Rank candidates.

        Raises:
            ApiError: If an item, the user or an adapter is unknown, the candidates do not fit into a prompt, or the
                queue is full.
        """
        # The history is read before the request is admitted: a database that hangs must not fill the queue.
        request, assignment = self._assignments.assign_request(request)
        faults = FaultCollector()
        case = await self._cases.read(request, request.candidates, faults)
        faults.refuse()
        answer = partial(self._rank, case, pool=False)
        with self.batcher.admit():
            ranked = await answer(request.adapter)
        return self._assignments.complete_ranking(assignment, *ranked, answer)

    async def rerank(self, request: RerankRequest | TextsRerankRequest) -> RankResponse:
        """Rank documents, whose texts are titles, for a query, whose lines are the titles of a history.

        Raises:
            ApiError: As for `rank`.
        """
        case = await asyncio.to_thread(rerank_case, request, self.catalogue.state.adapters.dataset)
        adapter, assignment = self._assignments.assign(request.model, None)
        if adapter == FUSION and self.fusion is not None and FUSION not in self.adapters.loaded:
            adapter = None
        answer = partial(self._rank, case, pool=False)
        try:
            with self.batcher.admit():
                ranked = await answer(adapter)
        except ApiError as error:
            raise error.with_fields(request.field_names) from error
        return self._assignments.complete_ranking(assignment, *ranked, answer)

    async def recommend(self, request: RecommendRequest) -> RankResponse:
        """Rank the candidates that the index proposes, by the fusion or with the prior of `lorarec.ranking.log_prior`.

        Raises:
            ApiError: If more items are asked for than the index proposes, a rule does not fit the columns of the items,
                or as for `rank`.
        """
        if "top" in request.model_fields_set and request.top > self._pool:
            raise ApiError(
                422,
                f"the service draws recommendations from a pool of {self._pool} candidates: ask for at most "
                f"{self._pool} items, or start the service with a larger --pool",
                "top",
            )
        request, assignment = self._assignments.assign_request(request)
        faults = FaultCollector()
        case = await self._cases.read(request, (), faults)

        async def answer(adapter: AdapterName) -> tuple[RankResponse, int]:
            view, seen = self._view(case, adapter)
            with faults.collect():
                rules = await asyncio.to_thread(request_rules, request, view.matcher)
            faults.refuse()
            candidates = await asyncio.to_thread(
                view.propose, seen.history, rules, self._pool, request.top, request.allow, request.deny
            )
            if not candidates:
                return empty_response(self._chosen_fusion(adapter)), 0
            ranked, count = await self._rank(replace(seen, candidates=candidates), adapter, pool=True)
            return recommend_response(ranked, rules, view.rows(candidates), request.top), count

        with self.batcher.admit():
            recommended = await answer(request.adapter)
        return self._assignments.complete_ranking(assignment, *recommended, answer)

    async def explain(self, request: ExplainRequest) -> ExplainResponse:
        """Attribute the score of an item to the items of the history, by leaving out each of them.

        The score is that of `rank` if the request gives candidates, and otherwise that of `recommend`. The candidates
        are those of the whole history throughout.

        Raises:
            ApiError: If the index of the candidate is out of range, the history is empty or has the item, nothing is
                left to recommend, or as for `rank`.
        """
        request, assignment = self._assignments.assign_request(request)
        pool = request.candidates is None
        case = await self._cases.read_explained(request)
        fusion = self._chosen_fusion(request.adapter)
        view, case = self._view(case, request.adapter)
        if fusion is not None and request.item_id is not None:
            self.catalogue.state.refuse_unlike({"item_id": request.item_id})
        with self.batcher.admit():
            if pool:
                candidates = await asyncio.to_thread(self._propose_with, case.history, request, view)
                case = replace(case, candidates=candidates)
            if fusion is None:
                scores, mixture, tokens = await self._scorer.score(
                    case, request.adapter, self.prompts.leave_one_out_requests
                )
                prior = log_prior(len(case.candidates)) if pool else None
                ranked = rank_response(case, scores[0], mixture, self.prompts, tokens, prior)
                scores = scores if prior is None else [each + prior for each in scores]
                mixtures = [mixture]
            else:
                cases = leave_one_out_cases(case, fusion.max_history)
                fused, tokens = await self._scorer.fuse(fusion, cases, pool)
                scores = [each.log_probabilities for each in fused]
                ranked = fused_response(case, fused[0], fusion, tokens, self.prompts)
                mixtures = fusion.mixtures
            if not pool:
                place = request.candidate or 0
            elif request.item_id is not None:
                place = case.candidates.index(request.item_id)
            else:
                place = ranked.ranking[0].candidate
            loop, words = asyncio.get_running_loop(), self.prompts.evidence_words
            evidence = await loop.run_in_executor(self._prompt_thread, words, case, case.candidates[place], mixtures)
        response = explain_response(case, ranked, scores, place, evidence, self.prompts)
        return self._assignments.complete(assignment, response)

    async def find_items(self, query: str, limit: int, cursor: str | None = None) -> Page[str]:
        """Return a page of the ids of items whose titles hold all words of a query, best match first.

        Raises:
            ApiError: If the cursor is not of this list, or the queue is full.
        """
        with self.batcher.admit(scored=False):
            state = self.catalogue.state
            return await asyncio.to_thread(lambda: state.search.search(query, limit, cursor))

    async def find_users(self, query: str, limit: int, cursor: str | None = None) -> Page[str]:
        """Return a page of the ids of users of the dataset that hold all words of a query, best match first.

        Users whose interactions have been deleted are left out.

        Raises:
            ApiError: If the cursor is not of this list, the queue is full, or the database is not usable.
        """
        hidden = await self.users.deleted()
        with self.batcher.admit(scored=False):
            return await asyncio.to_thread(self._user_search.search, query, limit, cursor, hidden)

    def _propose_with(self, history: Sequence[str], request: ExplainRequest, view: CatalogueView) -> list[str]:
        """Return the candidates that the index proposes, with the item of the request last if it is not one of them.

        Raises:
            ApiError: 422, if there are none, or a condition does not fit the columns of the items.
        """
        rules = request_rules(request, view.matcher)
        candidates = view.propose(history, rules, self._pool, 1, request.allow, request.deny)
        if request.item_id is not None and request.item_id not in candidates:
            candidates.append(request.item_id)
        if not candidates:
            raise ApiError(422, "nothing is left to recommend: give a shorter history, or allow more items")
        return candidates

    def _chosen_fusion(self, adapter: AdapterName) -> ServedFusion | None:
        """Return the fusion if it answers a request that names an adapter or none; otherwise adapters do."""
        return self.fusion if adapter is None else None

    def _view(self, case: RequestCase, adapter: AdapterName) -> tuple[CatalogueView, RequestCase]:
        """Return the catalogue that a request sees, and its case as what answers it reads it.

        Raises:
            ApiError: 422, if the fusion answers and cannot score a candidate.
        """
        state = self.catalogue.state
        if self._chosen_fusion(adapter) is None:
            return state.adapters, case
        return state.fusion, state.fusion_case(case)

    async def _rank(self, case: RequestCase, adapter: AdapterName, pool: bool) -> tuple[RankResponse, int]:
        """Rank given candidates, or proposed ones (`pool`) of a case of `_view`, and return their number."""
        if not pool:
            _, case = self._view(case, adapter)
        count = len(case.candidates)
        if fusion := self._chosen_fusion(adapter):
            (fused,), tokens = await self._scorer.fuse(fusion, [case], pool)
            return fused_response(case, fused, fusion, tokens, self.prompts), count
        (scores,), mixture, tokens = await self._scorer.score(
            case, adapter, lambda case, mixture: [self.prompts.scoring_request(case, mixture)]
        )
        return rank_response(case, scores, mixture, self.prompts, tokens, log_prior(count) if pool else None), count
