"""Two replicas on Ray Serve behind one address through the death of one: right answers, or clear failures.

Clients ask for checked rankings and store events (see `replica_clients.py`). After a third of the time the process of
one replica gets SIGKILL, and Ray Serve starts another. The program fails if an answer differs from the offline one, an
acknowledged event is missing in the database or is there twice, a request gets no HTTP status, or more requests fail
than the killed replica could have had in progress; 429 of an overloaded machine does not count.

The replicas share a PostgreSQL server, or an SQLite file where PostgreSQL is not installed.

    python benchmarks/serve_replicas.py                           # 64 clients, one minute
    python benchmarks/serve_replicas.py --seconds 15 --clients 8
"""

import argparse
import asyncio
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))
# Workers import the same modules as this process.
os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)

import psutil
import sqlalchemy
from ray import serve
from replica_clients import Clients, Shop, report

from lorarec.io.ray_cluster import cluster
from lorarec.serving import listen
from lorarec.serving.ray_serve import ServeArguments, build
from tests.postgres import find_postgres, postgres_server

#: When a replica is killed, as a share of the time.
KILL = 1 / 3


def replica_processes() -> list[psutil.Process]:
    """Return the processes of the replicas, which Ray starts below this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any("ServeReplica:" in word for word in process.cmdline()[:1]):
                found.append(process)
        except psutil.Error:  # it has ended
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shop = Shop(folder)
        programs = find_postgres()
        database = f"sqlite:///{folder / 'histories.db'}"
        if programs is not None:
            database = stack.enter_context(postgres_server(programs)).url
        with listen("127.0.0.1", 0) as bound:
            port = bound.getsockname()[1]
        stack.enter_context(cluster())
        stack.callback(serve.shutdown)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        paths = {"dataset": str(folder / "data"), "adapters": [str(folder / "adapters")], "db": database}
        serve.run(build(ServeArguments.model_validate(paths | {"num_replicas": 2})), name="shop")
        before = replica_processes()

        async def kill(_: Clients) -> None:
            await asyncio.sleep(KILL * arguments.seconds)
            before[0].kill()

        outcomes = asyncio.run(
            Clients(shop, f"http://127.0.0.1:{port}").run(arguments.clients, arguments.seconds, kill)
        )
        after = replica_processes()
        engine = sqlalchemy.create_engine(database.replace("postgresql:", "postgresql+psycopg:"))
        with engine.connect() as connection:
            query = "SELECT event_id FROM lorarec_events WHERE event_id IS NOT NULL"
            stored = [row[0] for row in connection.execute(sqlalchemy.text(query))]
        engine.dispose()
        is_right = report(outcomes, shop, stored)
        # 429 is the answer to more clients than the machine can serve in time.
        failed = sum(count for (_, status), count in outcomes.statuses.items() if status not in ("200", "429"))
        started = len({process.pid for process in after} - {process.pid for process in before})
        print(
            f"{len(before)} replicas, one killed after {KILL * arguments.seconds:.0f} s and {started} started since; "
            f"{failed} requests failed of {arguments.clients} that were in progress"
        )
        if not is_right or failed > arguments.clients:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
