"""The service behind the HTTP API: who asks for what, and the parts that answer."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from lorarec.backbone import Backbone
from lorarec.data import ITEM, TITLE, USER, Dataset
from lorarec.errors import LorarecError
from lorarec.lora import FACTORS
from lorarec.personal import UserHistory
from lorarec.ranking import log_prior
from lorarec.retrieval import Index
from lorarec.serving.batcher import Batcher
from lorarec.serving.database import DatabaseCalls
from lorarec.serving.engine import LoadedAdapter, Mixture, MultiAdapterEngine, ScoringRequest
from lorarec.serving.errors import ApiError
from lorarec.serving.health import DatabaseState, WatchedThread
from lorarec.serving.histories import Event, Histories
from lorarec.serving.metrics import Metrics
from lorarec.serving.registry import AdapterRegistry
from lorarec.serving.request_prompts import RequestCase, RequestPrompts
from lorarec.serving.requests import EventsRequest, RankRequest, RecommendRequest
from lorarec.serving.responses import RankResponse
from lorarec.serving.scores import ranking
from lorarec.serving.search import TextSearch

#: Seconds that the service gives its threads to end.
STOP_SECONDS = 3.0
#: Seconds of building one request's prompts after which their thread counts as stuck.
STUCK_SECONDS = 60.0
#: The latest items of a stored history that are read: prompts show fewer, recommendations leave these out.
MOST_STORED = 10_000

Found = TypeVar("Found", list[str], UserHistory)


@dataclass(frozen=True)
class ServiceConfig:
    """How the service runs.

    Attributes:
        combine: the rule of all mixtures, `factors` or `deltas`.
        load: names of the adapters to load at first; None is all in the folder.
        token_budget: padded tokens of requests that share a pass.
        wait: seconds a batch that is not full waits for more requests.
        queue: requests inside the service at once, and those that wait for the database; those beyond get 429.
        pool: candidates that `recommend` hands to the ranker.
    """

    combine: str = FACTORS
    load: Sequence[str] | None = None
    token_budget: int = 8192
    wait: float = 0.002
    queue: int = 256
    pool: int = 100


class Service:
    """Ranks and recommends for stored users or given histories with the adapters on the shelf.

    Args:
        adapters: a folder of PEFT folders and of what `choose_by_user` wrote.
        database: URL of the histories (see `Histories`).
        index: of the dataset; made on the spot, without a next-item model, when None.

    Attributes:
        shelf: the adapters.
        prompting: from a request's items to prompts; for the thread of prompts only.
        batcher: the queue in front of the model.
        database: the state of the histories' database.
        histories: the users.
        metrics: what is counted.

    Raises:
        LorarecError: there is no such folder, an adapter is unusable, or the database is.
    """

    def __init__(
        self,
        backbone: Backbone,
        dataset: Dataset,
        adapters: Path,
        database: str,
        options: ServiceConfig | None = None,
        index: Index | None = None,
    ) -> None:
        options = options or ServiceConfig()
        if not adapters.is_dir():
            raise LorarecError(f"adapters folder {adapters} does not exist: give a folder of PEFT folders")
        self._dataset = dataset
        self._pool = options.pool
        self.metrics = Metrics()
        self._engine = MultiAdapterEngine(backbone, options.combine)
        self.shelf = AdapterRegistry(adapters, self._engine, dataset, self.metrics)
        self.shelf.open(options.load)
        self.batcher = Batcher(self._engine.score, options.token_budget, options.wait, options.queue, self.metrics)
        self.prompting = RequestPrompts(backbone, dataset)
        if any(one.prompt.evidence for one in self.shelf.loaded.values()):
            self.prompting.evidence()
        # A tokenizer is for one thread at a time.
        self._prompt_thread = WatchedThread("prompts", STUCK_SECONDS)
        self._index = index or Index.build(dataset)
        self._titles = TextSearch(dataset.items[TITLE])
        self._users = dataset.interactions[USER].unique(maintain_order=True)
        self._user_ids = TextSearch(self._users)
        self.histories = Histories(database)
        self.histories.fill(dataset)
        self.database = DatabaseState(self.histories)
        self._database_calls = DatabaseCalls(options.queue, self.metrics)

    @property
    def alive(self) -> bool:
        """Whether the threads of prompts and of the model are at work or free."""
        return self.batcher.alive and not self._prompt_thread.stuck

    async def stop(self) -> None:
        """Answer what is queued, then end all threads and connections; what hangs is left behind."""
        self._prompt_thread.shutdown(wait=False, cancel_futures=True)
        self._database_calls.close()
        self.database.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.batcher.stop()
                await asyncio.to_thread(self.histories.close)
        except TimeoutError:
            return  # the model is in use
        self._engine.close()

    async def rank(self, request: RankRequest) -> RankResponse:
        """Put candidates in order.

        Raises:
            Problem: an unknown item, user or adapter, candidates that do not fit, or a full queue.
        """
        # Not yet inside: requests that need no database find room when it does not answer.
        case = await self.case(request)
        with self.batcher.admitted():
            return ranking(case, *await self._scores(case, request), self.prompting)

    async def recommend(self, request: RecommendRequest) -> RankResponse:
        """Put the best of what the index proposes in order; see `lorarec.ranking.recommendation.log_prior`.

        Raises:
            Problem: as for `rank`.
        """
        whose = await self._history(request)
        with self.batcher.admitted():
            candidates = await asyncio.to_thread(self._propose, whose.history, request)
            if not candidates:
                return RankResponse(ranking=[], mixture={}, personal={})
            case = replace(whose, candidates=candidates)
            scores, mixture = await self._scores(case, request)
            found = ranking(case, scores, mixture, self.prompting, log_prior(len(scores)))
            return found.model_copy(update={"ranking": found.ranking[: request.top]})

    async def store(self, request: EventsRequest) -> int:
        """Append events and return how many were new; the next answer reads them.

        Raises:
            Problem: an item that the catalogue does not have, or a full queue.
        """
        for place, event in enumerate(request.events):
            self.prompting.known(event.item_id, f"events.{place}.item_id")
        events = [Event(**event.model_dump()) for event in request.events]
        stored = await self._database_calls.run(self.histories.append, events)
        self.metrics.events.inc(stored)
        return stored

    async def find_items(self, words: str, limit: int) -> list[str]:
        """Ids of items whose titles hold all the words, best match first.

        Raises:
            Problem: a full queue.
        """
        with self.batcher.admitted():
            places = await asyncio.to_thread(self._titles.places, words, limit)
        return self._dataset.items[ITEM].gather(places).to_list()

    async def find_users(self, words: str, limit: int) -> list[str]:
        """Ids of users of the dataset that hold all the words, best match first.

        Raises:
            Problem: a full queue.
        """
        with self.batcher.admitted():
            places = await asyncio.to_thread(self._user_ids.places, words, limit)
        return self._users.gather(places).to_list()

    async def latest(self, user: str, limit: int) -> list[str]:
        """Item ids of a stored history, latest first.

        Raises:
            Problem: an unknown user, or a full queue.
        """
        return (await self._stored(self.histories.history, user, limit))[::-1]

    def _propose(self, history: Sequence[str], request: RecommendRequest) -> list[str]:
        """Item ids outside the history that are worth ranking."""
        blocked = self._index.blocked(request.allow, request.deny)
        return [proposal.item_id for proposal in self._index.propose(history, self._pool, blocked)]

    async def _history(self, request: RankRequest | RecommendRequest) -> RequestCase:
        """Whose history a request speaks of, without candidates."""
        if request.history is not None:
            return RequestCase(None, self.prompting.ids(request.history, "history"), [])
        assert request.user_id is not None
        past = await self._stored(self.histories.past, request.user_id, MOST_STORED)
        return RequestCase(request.user_id, past.items, [], past)

    async def _stored(self, read: Callable[[str, int], Found], user: str, latest: int) -> Found:
        found = await self._database_calls.run(read, user, latest)
        if not found:
            raise ApiError(404, f"user {user!r} has no history: store events, or send a history", "user_id")
        return found

    async def case(self, request: RankRequest) -> RequestCase:
        """The items that a request speaks of.

        Raises:
            Problem: an unknown item or user.
        """
        candidates = self.prompting.ids(request.candidates, "candidates")
        return replace(await self._history(request), candidates=candidates)

    async def _scores(self, case: RequestCase, request: RankRequest | RecommendRequest) -> tuple[np.ndarray, Mixture]:
        (scores,), mixture = await self.score(case, request.adapter, lambda *asked: [self.prompting.row(*asked)])
        return scores, mixture

    async def score(
        self,
        case: RequestCase,
        adapter: str | dict[str, float] | None,
        rows: Callable[[RequestCase, Mixture], list[ScoringRequest]],
    ) -> tuple[list[np.ndarray], Mixture]:
        """Scores (candidates,) of the rows that are made of a case for the mixture a request wants, and that mixture.

        Raises:
            Problem: an unknown adapter, or candidates that do not fit.
        """

        def made(shares: dict[LoadedAdapter, float]) -> tuple[list[ScoringRequest], Mixture]:
            mixture = self.prompting.mixture(case, shares)
            return rows(case, mixture), mixture

        loop = asyncio.get_running_loop()
        while True:
            shares = self.shelf.mixture(adapter)
            try:
                ready, mixture = await loop.run_in_executor(self._prompt_thread, made, shares)
            except LorarecError as error:
                raise ApiError(422, str(error), "candidates") from error
            # An adapter may have been unloaded or replaced meanwhile; from here on the queue keeps the order.
            if self.shelf.holds(shares):
                return await self.batcher.score(ready), mixture
