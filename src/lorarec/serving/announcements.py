"""Loading and unloading of adapters in all replicas that share a database."""

import asyncio
import time
from collections.abc import Sequence

from sqlalchemy.engine import Engine

from lorarec.serving.adapter_registry import AdapterRegistry
from lorarec.serving.adapter_table import AdapterTable
from lorarec.serving.database import DatabaseCalls
from lorarec.serving.engine import LoadedAdapter
from lorarec.serving.refresher import Refresher

#: Seconds between two looks at the announcements of other replicas.
POLL_SECONDS = 1.0
#: Seconds after which a replica tries again to load announced adapters that it could not load.
RETRY_SECONDS = 10.0


class AdapterAnnouncements:
    """Announce changes of the adapters to the other replicas of a database, and apply those that others announce.

    Args:
        engine: Connections to a database that `Histories.fill` has prepared.
        calls: Threads of calls to the database.
        registry: Adapters of this replica.

    Attributes:
        applied: Whether no announcement that this replica has read waits to be applied. One that it cannot apply does
            not wait.
    """

    def __init__(self, engine: Engine, calls: DatabaseCalls, registry: AdapterRegistry) -> None:
        self._table = AdapterTable(engine)
        self._calls = calls
        self._registry = registry
        self._revision = 0
        self._retried = time.monotonic()
        self.applied = True
        # An announcement is read and applied, or made and written, in one step: none is applied after a later one.
        self._lock = asyncio.Lock()
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

    async def load(self, name: str) -> LoadedAdapter:
        """Load an adapter, or a new version of a loaded one, and announce it; other replicas follow.

        Raises:
            ApiError: As for `AdapterRegistry.load`; 503, if the database cannot be reached, and nothing is changed.
        """
        async with self._lock:
            return await self._registry.load(name, self._announce)

    async def roll_back(self, name: str) -> LoadedAdapter:
        """Put back the version of an adapter that the latest load replaced, and announce it; other replicas follow.

        Raises:
            ApiError: As for `AdapterRegistry.roll_back`; 503, if the database cannot be reached, and nothing is
                changed.
        """
        async with self._lock:
            return await self._registry.roll_back(name, self._announce)

    async def unload(self, name: str) -> None:
        """Unload an adapter and announce it; other replicas follow.

        Raises:
            ApiError: As for `AdapterRegistry.unload`; 503, if the database cannot be reached, and nothing is changed.
        """
        async with self._lock:
            await self._registry.unload(name, self._announce)

    async def _announce(self, name: str, fingerprint: str | None) -> None:
        await self._calls.run(self._table.write, name, fingerprint)

    async def _apply(self) -> None:
        async with self._lock:
            is_retry = bool(self._registry.unavailable) and time.monotonic() - self._retried > RETRY_SECONDS
            announced = await self._calls.run(self._table.read, 0 if is_retry else self._revision)
            if is_retry:
                self._retried = time.monotonic()
            if not announced:
                return
            latest = max(self._revision, announced[-1].revision)
            self.applied = latest == self._revision
            self._registry.expect(announced)
            for announcement in announced:
                await self._registry.apply(announcement)
            self._revision, self.applied = latest, True
