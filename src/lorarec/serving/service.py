"""The service behind the HTTP API: who asks for what, and the parts that answer."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lorarec.adapters import FACTORS
from lorarec.backbone import Backbone
from lorarec.data import Dataset
from lorarec.data.columns import ITEM, TITLE, USER
from lorarec.errors import LorarecError
from lorarec.retrieval import Index
from lorarec.scoring import posterior
from lorarec.serving.answers import Ranked, Ranking
from lorarec.serving.batcher import Batcher
from lorarec.serving.engine import Engine, Loaded, Row
from lorarec.serving.histories import Event, Histories
from lorarec.serving.metrics import Metrics
from lorarec.serving.problems import Problem
from lorarec.serving.prompting import UNKNOWN, Case, Prompting
from lorarec.serving.requests import EventsRequest, Item, RankRequest, RecommendRequest, Title
from lorarec.serving.search import Search
from lorarec.serving.shelf import Shelf

#: The latest items of a stored history that are read: prompts show fewer, recommendations leave these out.
MOST_STORED = 10_000


@dataclass(frozen=True)
class ServiceOptions:
    """How the service runs.

    Attributes:
        combine: the rule of all mixtures, `factors` or `deltas`.
        load: names of the adapters to load at first; None is all in the folder.
        token_budget: padded tokens of requests that share a pass.
        wait: seconds a batch that is not full waits for more requests.
        queue: requests inside the service at once; those beyond get 429.
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
        adapters: a folder of PEFT folders.
        database: URL of the histories (see `Histories`).
        index: of the dataset; made on the spot, without a next-item model, when None.

    Attributes:
        shelf: the adapters.
        prompting: from a request's items to prompts; for the thread of prompts only.
        batcher: the queue in front of the model.
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
        options: ServiceOptions | None = None,
        index: Index | None = None,
    ) -> None:
        options = options or ServiceOptions()
        if not adapters.is_dir():
            raise LorarecError(f"adapters folder {adapters} does not exist: give a folder of PEFT folders")
        self._dataset = dataset
        self._pool = options.pool
        self.metrics = Metrics()
        self._engine = Engine(backbone, options.combine)
        self.shelf = Shelf(adapters, self._engine, self.metrics)
        self.shelf.open(self.shelf.available() if options.load is None else list(options.load))
        self.batcher = Batcher(self._engine.score, options.token_budget, options.wait, options.queue, self.metrics)
        self.prompting = Prompting(backbone, dataset)
        if any(one.settings["evidence"] for one in self.shelf.loaded.values()):
            self.prompting.evidence()
        # A tokenizer is for one thread at a time.
        self._prompt_thread = ThreadPoolExecutor(1, "prompts")
        self._index = index or Index.build(dataset)
        self._titles = Search(dataset.items[TITLE])
        self._users = dataset.interactions[USER].unique(maintain_order=True)
        self._user_ids = Search(self._users)
        self.histories = Histories(database)
        self.histories.fill(dataset)

    async def stop(self) -> None:
        """Answer what is queued, then end all threads and connections."""
        await self.batcher.stop()
        self._prompt_thread.shutdown()
        self.histories.close()
        self._engine.close()

    async def rank(self, request: RankRequest) -> Ranking:
        """Put candidates in order.

        Raises:
            Problem: an unknown item, user or adapter, candidates that do not fit, or a full queue.
        """
        with self.batcher.admitted():
            return await self._ranked(await self.case(request), request)

    async def recommend(self, request: RecommendRequest) -> Ranking:
        """Put the best of what the index proposes in order.

        Raises:
            Problem: as for `rank`.
        """
        with self.batcher.admitted():
            history = await self._history(request)
            candidates = await asyncio.to_thread(self._propose, history, request)
            if not candidates:
                return Ranking(ranking=[], mixture={})
            found = await self._ranked(Case(request.user_id, history, candidates), request)
            return Ranking(ranking=found.ranking[: request.top], mixture=found.mixture)

    async def store(self, request: EventsRequest) -> int:
        """Append events and return how many were new; the next answer reads them.

        Raises:
            Problem: an item that the catalogue does not have, or a full queue.
        """
        with self.batcher.admitted():
            for place, event in enumerate(request.events):
                self._known(event.item_id, f"events.{place}.item_id")
            events = [Event(**event.model_dump()) for event in request.events]
            stored = await asyncio.to_thread(self.histories.append, events)
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
        with self.batcher.admitted():
            return (await self._stored(user, limit))[::-1]

    def _propose(self, history: Sequence[str], request: RecommendRequest) -> list[str]:
        """Item ids outside the history that are worth ranking."""
        blocked = self._index.blocked(request.allow, request.deny)
        return [proposal.item_id for proposal in self._index.propose(history, self._pool, blocked)]

    async def _history(self, request: RankRequest | RecommendRequest) -> list[str]:
        if request.history is not None:
            return self._items(request.history, "history")
        assert request.user_id is not None
        return await self._stored(request.user_id, MOST_STORED)

    async def _stored(self, user: str, latest: int) -> list[str]:
        found = await asyncio.to_thread(self.histories.history, user, latest)
        if not found:
            raise Problem(404, f"user {user!r} has no history: store events, or send a history", "user_id")
        return found

    async def case(self, request: RankRequest) -> Case:
        """The items that a request speaks of.

        Raises:
            Problem: an unknown item or user.
        """
        candidates = self._items(request.candidates, "candidates")
        return Case(request.user_id, await self._history(request), candidates)

    async def _ranked(self, case: Case, request: RankRequest | RecommendRequest) -> Ranking:
        (scores,), mixture = await self.score(lambda mixture: [self.prompting.row(case, mixture)], request.adapter)
        return self.answer(case, scores, mixture)

    async def score(
        self, rows: Callable[[dict[Loaded, float]], list[Row]], adapter: str | dict[str, float] | None
    ) -> tuple[list[np.ndarray], dict[Loaded, float]]:
        """Scores (candidates,) of the rows that are made for the mixture a request wants, and that mixture.

        Raises:
            Problem: an unknown adapter, or candidates that do not fit.
        """
        loop = asyncio.get_running_loop()
        while True:
            mixture = self.shelf.mixture(adapter)
            try:
                made = await loop.run_in_executor(self._prompt_thread, rows, mixture)
            except LorarecError as error:
                raise Problem(422, str(error), "candidates") from error
            # An adapter may have been unloaded or replaced meanwhile; from here on the queue keeps the order.
            if self.shelf.holds(mixture):
                return await self.batcher.score(made), mixture

    def answer(self, case: Case, scores: np.ndarray, mixture: dict[Loaded, float]) -> Ranking:
        """The candidates of a case, best first, with their scores (candidates,)."""
        shares = posterior(scores)
        ranking = [
            Ranked(
                item_id=None if case.candidates[place].startswith(UNKNOWN) else case.candidates[place],
                title=self.prompting.title(case.candidates[place]),
                score=float(scores[place]),
                probability=float(shares[place]),
                candidate=int(place),
            )
            for place in np.argsort(-scores, kind="stable")
        ]
        return Ranking(ranking=ranking, mixture={one.name: weight for one, weight in mixture.items()})

    def _items(self, items: Sequence[Item], field: str) -> list[str]:
        return [
            UNKNOWN + item.title if isinstance(item, Title) else self._known(item, f"{field}.{place}")
            for place, item in enumerate(items)
        ]

    def _known(self, item: str, field: str) -> str:
        if item not in self._dataset.titles:
            raise Problem(422, f'item {item!r} is not in the catalogue: give an id of it, or {{"title": ...}}', field)
        return item
