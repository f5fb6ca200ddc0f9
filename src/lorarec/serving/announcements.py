"""Loading and unloading of adapters in all replicas that share a database."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from lorarec.serving.adapter_registry import AdapterRegistry
from lorarec.serving.adapter_table import AdapterTable
from lorarec.serving.batcher import Batcher
from lorarec.serving.database import CALL_SECONDS, database_error
from lorarec.serving.engine import LoadedAdapter
from lorarec.serving.refresher import Refresher

#: Seconds between two looks at the announcements of other replicas.
POLL_SECONDS = 1.0
#: Seconds after which a replica tries again to load announced adapters that it could not load.
RETRY_SECONDS = 10.0

T = TypeVar("T")


class AdapterAnnouncements:
    """Announce changes of the adapters to the other replicas of a database, and apply those that others announce.

    Args:
        database: URL of a database that `Histories.fill` has prepared.
        registry: Adapters of this replica.
        batcher: Queue in front of the model.

    Attributes:
        applied: Whether no announcement that this replica has read waits to be applied. One that it cannot apply does
            not wait.

    Raises:
        LorarecError: If the kind of database is unknown, or its driver is not installed.
    """

    def __init__(self, database: str, registry: AdapterRegistry, batcher: Batcher) -> None:
        self._table = AdapterTable(database)
        self._registry = registry
        self._batcher = batcher
        self._revision = 0
        self._retried = time.monotonic()
        self.applied = True
        # An announcement is read and applied, or made and written, in one step: none is applied after a later one.
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "announcements")
        self._refresher = Refresher([self._apply], POLL_SECONDS)

    def load_initial(self, names: Sequence[str] | None) -> None:
        """Load adapters before the service starts, as the announcements say.

        Args:
            names: Names to load in addition to those that are announced; None for all that are available.

        Raises:
            LorarecError: If the database cannot be used, or as for `AdapterRegistry.load_initial`.
        """
        announced = self._table.read_all()
        self._registry.load_initial(names, announced)
        self._revision = max((each.revision for each in announced), default=0)

    def start(self) -> None:
        """Start to apply what other replicas announce; an event loop must be running."""
        self._refresher.start()

    async def stop(self) -> None:
        """Apply nothing more; a call to the database that hangs is not waited for."""
        await self._refresher.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Close all connections to the database."""
        self._table.close()

    async def load(self, name: str) -> LoadedAdapter:
        """Load an adapter, or a new version of a loaded one, and announce it; other replicas follow.

        Raises:
            ApiError: As for `AdapterRegistry.load`; 503, if the database cannot be reached, and nothing is changed.
        """
        async with self._lock:
            return await self._registry.load(name, self._batcher, self._announce)

    async def roll_back(self, name: str) -> LoadedAdapter:
        """Put back the version of an adapter that the latest load replaced, and announce it; other replicas follow.

        Raises:
            ApiError: As for `AdapterRegistry.roll_back`; 503, if the database cannot be reached, and nothing is
                changed.
        """
        async with self._lock:
            return await self._registry.roll_back(name, self._batcher, self._announce)

    async def unload(self, name: str) -> None:
        """Unload an adapter and announce it; other replicas follow.

        Raises:
            ApiError: As for `AdapterRegistry.unload`; 503, if the database cannot be reached, and nothing is changed.
        """
        async with self._lock:
            await self._registry.unload(name, self._batcher, self._announce)

    async def _announce(self, name: str, fingerprint: str | None) -> None:
        await self._call(self._table.write, name, fingerprint)

    async def _apply(self) -> None:
        async with self._lock:
            is_retry = bool(self._registry.unavailable) and time.monotonic() - self._retried > RETRY_SECONDS
            announced = await self._call(self._table.read, 0 if is_retry else self._revision)
            if is_retry:
                self._retried = time.monotonic()
            if not announced:
                return
            latest = max(self._revision, announced[-1].revision)
            self.applied = latest == self._revision
            self._registry.expect(announced)
            for announcement in announced:
                await self._registry.apply(announcement, self._batcher)
            self._revision, self.applied = latest, True

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a call to the database in its thread and return its result.

        Raises:
            ApiError: 503, if it does not end within `CALL_SECONDS`.
            SQLAlchemyError: If the database cannot be used.
        """
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        except TimeoutError:
            raise database_error() from None
