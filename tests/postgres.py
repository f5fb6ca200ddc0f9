"""A PostgreSQL server of its own for tests and benchmarks."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from lorarec.serving import listen


class PostgresServer:
    """A PostgreSQL server of its own, reached through TCP."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self._programs, self._folder, self._user = programs, folder, user
        self._data = folder / "data"
        with listen("127.0.0.1", 0) as bound:
            self.port = bound.getsockname()[1]
        self._run("initdb", "--auth=trust", "--username=lorarec", "--no-sync", "--encoding=UTF8", "--locale=C")
        self.start()
        self.url = f"postgresql://lorarec@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "--wait", f"--log={self._folder / 'log'}", f"--options={options}", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "--wait", "--mode=immediate", "stop")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and its child processes."""
        main = (self._data / "postmaster.pid").read_text().split()[0]
        for process in [main, *Path(f"/proc/{main}/task/{main}/children").read_text().split()]:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(int(process), number)

    def execute(self, *statements: str) -> list[Any]:
        """Run statements outside of transactions and return the rows of the last one."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *words: str) -> None:
        command = [str(self._programs / program), f"--pgdata={self._data}", *words]
        subprocess.run(command, check=True, user=self._user, stdout=subprocess.DEVNULL, cwd=self._folder)


def find_postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs as Debian installs it, or as found in the PATH."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")), shutil.which("initdb")]
    return next((Path(path).parent for path in reversed(found) if path), None)


@contextmanager
def postgres_server(programs: Path) -> Iterator[PostgresServer]:
    """Run a server, which is stopped and deleted at the end.

    Args:
        programs: Folder of PostgreSQL's programs.
    """
    # The server refuses to run as root, and the folders of pytest are closed to others.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as name:
        if user is not None:
            os.chown(name, pwd.getpwnam(user).pw_uid, -1)
        server = PostgresServer(programs, Path(name), user)
        try:
            yield server
        finally:
            server.signal(signal.SIGCONT)
            server.stop()
