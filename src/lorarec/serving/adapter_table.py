"""Table of the adapters that replicas of the service announce to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from lorarec.errors import LorarecError
from lorarec.serving.database import lock_shared
from lorarec.serving.migrations import ADAPTERS


@dataclass(frozen=True)
class Announcement:
    """The latest change of an adapter, which all replicas apply.

    Attributes:
        name: Name of the adapter.
        fingerprint: Fingerprint of the version to load; None to unload the adapter.
        revision: Number of the change. Later changes of any adapter have higher numbers.
    """

    name: str
    fingerprint: str | None
    revision: int


class AdapterTable:
    """Read and write the latest announcement of each adapter. Thread-safe.

    Args:
        engine: Connections to a database that `Histories.fill` has prepared.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self, after: int) -> Sequence[Announcement]:
        """Return the announcements with a revision above `after`, oldest first.

        Raises:
            SQLAlchemyError: If the database cannot be used.
        """
        query = select(ADAPTERS).where(ADAPTERS.c.revision > after).order_by(ADAPTERS.c.revision)
        with self._engine.connect() as connection:
            return [Announcement(**row) for row in connection.execute(query).mappings()]

    def read_all(self) -> Sequence[Announcement]:
        """Return all announcements, oldest first, at the start of the service.

        Raises:
            LorarecError: If the database cannot be used.
        """
        try:
            return self.read(0)
        except SQLAlchemyError as error:
            url = self._engine.url.render_as_string(hide_password=True)
            raise LorarecError(f"database {url} cannot be used: {str(error).splitlines()[0]}") from error

    def write(self, name: str, fingerprint: str | None) -> None:
        """Announce that an adapter is loaded, or unloaded if `fingerprint` is None.

        Raises:
            SQLAlchemyError: If the database cannot be used.
        """
        with self._engine.begin() as connection:
            # Without the lock, a replica could see a revision before a lower one, and would miss that.
            lock_shared(connection)
            revision = (connection.scalar(select(func.max(ADAPTERS.c.revision))) or 0) + 1
            connection.execute(delete(ADAPTERS).where(ADAPTERS.c.name == name))
            connection.execute(insert(ADAPTERS), {"name": name, "fingerprint": fingerprint, "revision": revision})
