"""The catalogue of a service: that of the dataset, with the items that were added, changed or withdrawn by calls."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import delete, insert
from sqlalchemy.engine import Engine

from lorarec.data import ITEM, TITLE, Dataset, ItemMatcher
from lorarec.errors import LorarecError
from lorarec.retrieval import CatalogueRules, Index
from lorarec.serving.database import DatabaseCalls, lock_shared
from lorarec.serving.errors import ApiError, Fault, FaultCollector
from lorarec.serving.migrations import ITEMS
from lorarec.serving.request_prompts import TITLE_PREFIX, RequestCase, RequestPrompts
from lorarec.serving.search import TextSearch
from lorarec.serving.stored_items import StoredItem, read_items, row_of, with_items

logger = logging.getLogger(__name__)


#: Function that returns items to store, given the stored ones by id.
Edit = Callable[[Mapping[str, StoredItem]], Sequence[StoredItem]]


@dataclass(frozen=True)
class CatalogueView:
    """The catalogue as one kind of requests sees it.

    Attributes:
        dataset: Catalogue and interactions.
        index: Index of the dataset.
        matcher: Filters of the items.
        excluded: Mask of the items that are not recommended (items,).
    """

    dataset: Dataset
    index: Index
    matcher: ItemMatcher
    excluded: np.ndarray

    def propose(
        self,
        history: Sequence[str],
        rules: CatalogueRules,
        pool: int,
        top: int,
        allow: Sequence[str] | None,
        deny: Sequence[str],
    ) -> list[str]:
        """Return the items that the index proposes for a history, by the rules and lists of a request."""
        blocked = self.index.blocked(allow, deny) | self.excluded
        return [each.item_id for each in rules.propose(self.index, history, pool, top, blocked)]

    def rows(self, items: Sequence[str]) -> list[int]:
        """Return the rows of items in the dataset."""
        return [self.index.row[item] for item in items]


@dataclass(frozen=True)
class CatalogueState:
    """The catalogue at one time.

    Attributes:
        stored: What calls have said of items, by id.
        adapters: The catalogue of requests that adapters answer.
        fusion: The catalogue of requests that a fusion answers: the items that it was fitted with. Added items, and
            those with another title than in the dataset, are not recommended.
        unlike: Ids of the items that were added, or have another title than in the dataset.
    """

    stored: Mapping[str, StoredItem]
    adapters: CatalogueView
    fusion: CatalogueView
    unlike: frozenset[str]

    @cached_property
    def search(self) -> TextSearch:
        """Search in the titles of the items that are not withdrawn."""
        items = self.adapters.dataset.items.filter(pl.Series(~self.adapters.excluded))
        return TextSearch(items[TITLE], items[ITEM])

    def is_withdrawn(self, item: str) -> bool:
        """Return whether an item is not recommended any more."""
        return item in self.stored and self.stored[item].withdrawn

    def refuse_unlike(self, items: Mapping[str, str]) -> None:
        """Refuse items that the fusion cannot score, by the fields that hold them.

        Raises:
            ApiError: 422, with all of them.
        """
        message = (
            "the fusion was fitted without item {!r}, or with another title of it: name an adapter, or fit the fusion "
            "again with a dataset that has it"
        )
        unlike = {field: item for field, item in items.items() if item in self.unlike}
        if unlike:
            raise ApiError(422, faults=[Fault(message.format(item), field) for field, item in unlike.items()])

    def fusion_case(self, case: RequestCase) -> RequestCase:
        """Return a case as the fusion reads it: unlike items of the history are titles that nobody has seen.

        Raises:
            ApiError: 422, if a candidate is such an item.
        """
        if not self.unlike:
            return case
        self.refuse_unlike({f"candidates.{place}": item for place, item in enumerate(case.candidates)})
        titles = self.adapters.dataset.titles
        history = [TITLE_PREFIX + titles[item] if item in self.unlike else item for item in case.history]
        return replace(case, history=history)


class Catalogue:
    """Add, change and withdraw items of the catalogue while requests are served.

    What calls say of items is stored in the database and wins over the dataset. All replicas read it again and again. A
    request sees the catalogue of one time throughout.

    Args:
        dataset: Dataset of the service.
        index: Index of the dataset.
        engine: Connections to the database.
        calls: Threads of calls to the database.
        prompts: Builder of prompts, which reads titles.
        prompt_thread: Thread that builds prompts.

    Attributes:
        state: The catalogue as new requests see it.
    """

    def __init__(
        self,
        dataset: Dataset,
        index: Index,
        engine: Engine,
        calls: DatabaseCalls,
        prompts: RequestPrompts,
        prompt_thread: Executor,
    ) -> None:
        self._base = CatalogueView(dataset, index, ItemMatcher(dataset), np.zeros(len(index.items), bool))
        self._engine = engine
        self._calls = calls
        self._prompts = prompts
        self._prompt_thread = prompt_thread
        self._lock = asyncio.Lock()
        self._revision = 0
        self.state = CatalogueState({}, self._base, self._base, frozenset())

    def load(self) -> None:
        """Read what is stored of items before the service starts.

        Raises:
            LorarecError: The index takes no further items.
        """
        with self._engine.connect() as connection:
            self._revision, stored = read_items(connection, 0)
        if stored:
            self.state = self._make_state(stored)
            self._prompts.set_titles(self.state.adapters.dataset.titles)

    async def refresh(self) -> None:
        """Read what other replicas have stored of items since.

        Raises:
            ApiError: 429 or 503, if the database does not respond in time.
        """
        async with self._lock:
            revision, newer = await self._calls.run(self._read_newer)
            if newer:
                await self._apply(revision, newer)

    async def add(self, items: Sequence[StoredItem]) -> None:
        """Add items, all or none; one that was withdrawn is recommended again.

        Raises:
            ApiError: 409, if an item exists; 422, if a column does not exist or cannot have a value; 429 or 503, if the
                database does not respond in time.
        """

        def edit(stored: Mapping[str, StoredItem]) -> Sequence[StoredItem]:
            self._refuse_text_encoder()
            faults, seen = FaultCollector(), set[str]()
            for place, item in enumerate(items):
                with faults.collect():
                    self._check_columns(item.columns, f"items.{place}.columns")
                is_known = item.item_id in self._base.index.row or item.item_id in stored
                is_withdrawn = item.item_id in stored and stored[item.item_id].withdrawn
                if item.item_id in seen or (is_known and not is_withdrawn):
                    raise ApiError(
                        409,
                        f"item {item.item_id!r} exists: change it with PATCH /v1/items/{{item_id}}",
                        f"items.{place}.item_id",
                    )
                seen.add(item.item_id)
            faults.refuse()
            return [replace(item, columns=self._converted(item.columns)) for item in items]

        await self._edit(edit)

    async def change(self, item_id: str, title: str | None, columns: Mapping[str, Any]) -> None:
        """Change the title of an item, if one is given, and some of its columns.

        Raises:
            ApiError: 404, if there is no such item or it is withdrawn; otherwise as for `add`.
        """

        def edit(stored: Mapping[str, StoredItem]) -> Sequence[StoredItem]:
            item = self._existing(item_id, stored)
            self._check_columns(columns, "columns")
            if title is not None:
                self._refuse_text_encoder()
            changed = {**item.columns, **self._converted(columns)}
            return [replace(item, title=item.title if title is None else title, columns=changed)]

        await self._edit(edit)

    async def withdraw(self, item_id: str) -> None:
        """Recommend an item no more; histories keep it.

        Raises:
            ApiError: 404, if there is no such item or it is withdrawn already; 429 or 503, if the database does not
                respond in time.
        """
        await self._edit(lambda stored: [replace(self._existing(item_id, stored), withdrawn=True)])

    def columns(self, item_id: str) -> dict[str, Any]:
        """Return the values of the further columns of an item of the catalogue."""
        view = self.state.adapters
        row = view.dataset.items.drop(ITEM, TITLE).row(view.index.row[item_id], named=True)
        return {name: None if value != value else value for name, value in row.items()}  # NaN is no JSON

    def _refuse_text_encoder(self) -> None:
        """Refuse titles that the index cannot embed.

        Raises:
            ApiError: 422, if it has embedded titles.
        """
        try:
            self._base.index.refuse_embedded_titles()
        except LorarecError as error:
            raise ApiError(422, str(error)) from None

    def _existing(self, item_id: str, stored: Mapping[str, StoredItem]) -> StoredItem:
        item = stored.get(item_id)
        if item is None and item_id in self._base.index.row:
            item = StoredItem(item_id, None, {}, False)
        if item is None:
            raise ApiError(404, f"item {item_id!r} is not in the catalogue: add it with POST /v1/items", "item_id")
        if item.withdrawn:
            raise ApiError(404, f"item {item_id!r} is withdrawn: add it again with POST /v1/items", "item_id")
        return item

    def _check_columns(self, columns: Mapping[str, Any], field: str) -> None:
        """Refuse values that the columns of the items cannot have beside those that they have.

        Raises:
            ApiError: 422, with all of them.
        """
        faults = FaultCollector()
        for name, value in columns.items():
            with faults.collect():
                if not self._is_column(name):
                    names = ", ".join(self._base.dataset.items.drop(ITEM, TITLE).columns) or "none"
                    raise ApiError(422, f"the items have no further column {name!r}: choose from {names}", field)
                if not self._accepts(name, value):
                    raise ApiError(422, f"column {name!r} holds values of another kind than {value!r}", field)
        faults.refuse()

    def _is_column(self, name: str) -> bool:
        return name in self._base.dataset.items.columns and name not in (ITEM, TITLE)

    def _accepts(self, name: str, value: Any) -> bool:
        try:
            return value is None or self._base.matcher.accepts(name, self._convert(name, value))
        except LorarecError:  # a type that filters do not read
            return False

    def _convert(self, name: str, value: Any) -> Any:
        """Return a value as a column holds it; importers store numbers, and true and false, as text."""
        if self._base.dataset.items.schema[name] == pl.String and isinstance(value, bool | int | float):
            return json.dumps(value)
        return value

    def _converted(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._convert(name, value) for name, value in columns.items()}

    async def _edit(self, edit: Edit) -> None:
        """Store items and let new requests see them."""
        async with self._lock:
            revision, newer = await self._calls.run(self._write, edit)
            await self._apply(revision, newer)

    async def _apply(self, revision: int, newer: Mapping[str, StoredItem]) -> None:
        """Let new requests see what is stored of some items."""
        state = await asyncio.to_thread(self._make_state, {**self.state.stored, **newer})
        if state.adapters.dataset.titles != self.state.adapters.dataset.titles:
            # Titles are never removed, so requests that began before find theirs.
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._prompt_thread, self._prompts.set_titles, state.adapters.dataset.titles)
        self.state, self._revision = state, revision

    def _make_state(self, stored: Mapping[str, StoredItem]) -> CatalogueState:
        """Return the catalogue with what is stored of items.

        Raises:
            LorarecError: The index takes no further items or other titles.
        """
        base = self._base.dataset
        # A changed item that the dataset has no more has no title.
        usable = {item: self._usable(each) for item, each in stored.items() if each.title or item in base.titles}
        dataset = with_items(base, usable)
        unlike = frozenset(item for item in usable if base.titles.get(item) != dataset.titles[item])
        index = self._base.index.with_catalogue(dataset) if unlike else self._base.index
        withdrawn = {item for item, each in usable.items() if each.withdrawn}
        adapters = CatalogueView(dataset, index, ItemMatcher(dataset), _mask(index, withdrawn))
        if not unlike:
            return CatalogueState(stored, adapters, adapters, unlike)
        known = {item: replace(each, title=None) for item, each in usable.items() if item in base.titles}
        fitted = with_items(base, known)
        fusion = CatalogueView(
            fitted, self._base.index, ItemMatcher(fitted), _mask(self._base.index, withdrawn | unlike)
        )
        return CatalogueState(stored, adapters, fusion, unlike)

    def _usable(self, item: StoredItem) -> StoredItem:
        """Return what is stored of an item without values that the columns of this dataset cannot have."""
        unusable = [
            name for name, value in item.columns.items() if not self._is_column(name) or not self._accepts(name, value)
        ]
        if not unusable:
            return item
        logger.warning("stored values of items are left out: the dataset has no such column %s", ", ".join(unusable))
        return replace(item, columns={name: each for name, each in item.columns.items() if name not in unusable})

    def _read_newer(self) -> tuple[int, dict[str, StoredItem]]:
        with self._engine.connect() as connection:
            return read_items(connection, self._revision)

    def _write(self, edit: Edit) -> tuple[int, dict[str, StoredItem]]:
        """Edit the stored items in one transaction, and return all that are newer than those of the state."""
        with self._engine.begin() as connection:
            lock_shared(connection)
            revision, newer = read_items(connection, self._revision)
            edited = edit({**self.state.stored, **newer})
            revision += 1
            connection.execute(delete(ITEMS).where(ITEMS.c.item_id.in_([each.item_id for each in edited])))
            connection.execute(insert(ITEMS), [row_of(each, revision) for each in edited])
        return revision, newer | {each.item_id: each for each in edited}


def _mask(index: Index, items: set[str] | frozenset[str]) -> np.ndarray:
    """Return a mask (items,) of some items of an index; others are ignored."""
    mask = np.zeros(len(index.items), bool)
    mask[[index.row[item] for item in items if item in index.row]] = True
    return mask
