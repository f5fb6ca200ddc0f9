"""Aliases: further names of adapters, which all replicas read from the database and which can be repointed at once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Engine

from lorarec.errors import LorarecError
from lorarec.serving.adapter_registry import AdapterRegistry
from lorarec.serving.database import DatabaseCalls, lock_shared
from lorarec.serving.errors import ApiError
from lorarec.serving.migrations import ALIASES

#: Maximum number of aliases.
MAX_ALIASES = 1000


class Aliases:
    """Aliases of adapters in the database, and the copy of them that the registry of the adapters reads.

    Args:
        engine: Connections to the database.
        calls: Threads of calls to the database.
        registry: Registry of the adapters.
    """

    def __init__(self, engine: Engine, calls: DatabaseCalls, registry: AdapterRegistry) -> None:
        self._engine = engine
        self._calls = calls
        self._registry = registry
        self._names = registry.names
        self._lock = asyncio.Lock()

    def load(self, default: str | None = None) -> None:
        """Read all aliases before the service starts.

        Args:
            default: Name or alias of the adapter of requests that name none, or None.

        Raises:
            LorarecError: If a loaded adapter has the name of an alias, or there is no adapter with the default name.
        """
        aliases = self._read()
        for name in self._registry.loaded:
            if name in aliases:
                raise LorarecError(
                    f"adapter {name} has the name of an alias of {aliases[name]} in the database: rename its folder, "
                    "or leave it out (option load)"
                )
        self._names.aliases = aliases
        if default is not None:
            self._names.set_default(default, self._registry.served)

    async def refresh(self) -> None:
        """Read all aliases, which other replicas may have changed.

        Raises:
            ApiError: 429 or 503, if the database does not respond in time.
        """
        self._names.aliases = await self._calls.run(self._read)

    async def point(self, alias: str, adapter: str) -> None:
        """Let an alias name a loaded adapter, from the next request on.

        Raises:
            ApiError: 404, if the adapter is not loaded; 409, if the alias is the name of an adapter, or there are too
                many; 429 or 503, if the database does not respond in time.
        """
        async with self._lock:
            self._registry.get(adapter, "adapter")
            if alias in self._registry.loaded or alias in self._registry.available():
                raise ApiError(409, f"{alias!r} is the name of an adapter: give the alias another", "alias")
            await self.refresh()
            if alias not in self._names.aliases and len(self._names.aliases) >= MAX_ALIASES:
                raise ApiError(409, f"there are {MAX_ALIASES} aliases already: delete one", "alias")
            self._names.aliases = await self._calls.run(self._write, alias, adapter)

    async def delete(self, alias: str) -> None:
        """Delete an alias.

        Raises:
            ApiError: 404, if there is none; 409, if requests without an adapter are answered by it; 429 or 503, if the
                database does not respond in time.
        """
        async with self._lock:
            await self.refresh()
            if alias not in self._names.aliases:
                names = ", ".join(self._names.aliases) or "none"
                raise ApiError(404, f"there is no alias {alias!r}: there are {names}", "alias")
            if alias == self._names.default:
                raise ApiError(409, f"{alias!r} answers requests without an adapter: point it to another one", "alias")
            self._names.aliases = await self._calls.run(self._write, alias, None)

    async def unload(self, name: str, unload: Callable[[str], Awaitable[None]]) -> None:
        """Unload an adapter that no alias names, here or on another replica.

        Args:
            name: Name of the adapter.
            unload: Function that unloads it if no alias names it.

        Raises:
            ApiError: 404, if the adapter is not loaded; 409, if it is needed; 429 or 503, if the database does not
                respond in time.
        """
        async with self._lock:
            await self.refresh()
            await unload(name)

    def _read(self) -> Mapping[str, str]:
        with self._engine.connect() as connection:
            rows = connection.execute(select(ALIASES.c.alias, ALIASES.c.adapter).order_by(ALIASES.c.alias))
            return dict(rows.tuples().all())

    def _write(self, alias: str, adapter: str | None) -> Mapping[str, str]:
        """Replace or delete an alias in one transaction, and return all aliases."""
        with self._engine.begin() as connection:
            lock_shared(connection)
            connection.execute(delete(ALIASES).where(ALIASES.c.alias == alias))
            if adapter is not None:
                connection.execute(insert(ALIASES), {"alias": alias, "adapter": adapter})
        return self._read()
