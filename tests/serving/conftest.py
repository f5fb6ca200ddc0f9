"""A small shop, four adapters of two kinds of prompts, and a service over them."""

import asyncio
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import polars as pl
import pytest
import torch
from playwright.sync_api import Browser, Page, expect, sync_playwright
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

import lorarec
from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, leave_one_out
from lorarec.data.cooccurrence import Cooccurrence, dataset_cooccurrence
from lorarec.lora import AdapterBank, read_adapter
from lorarec.personal import UserRouterConfig, train_user_router
from lorarec.ranking import Fusion, Ranker, fuse
from lorarec.recommenders import FusionConfig, ItemKNN, Popularity, SASRec, SASRecConfig, TfIdf
from lorarec.serving.app import create_app
from lorarec.serving.config import ServiceConfig
from lorarec.serving.http_config import HttpConfig
from lorarec.serving.server import Server, listen
from lorarec.serving.service import Service
from tests import factories
from tests.postgres import PostgresServer, find_postgres, postgres_server

Scenario = Callable[[httpx2.AsyncClient], Awaitable[Any]]
COLOURS = ["red", "green", "blue", "black", "white"]
THINGS = ["lamp", "chair", "table", "puzzle", "novel", "brush"]
#: Prompts in lorarec.json of the adapters.
EVIDENT = {"readout": "verdict", "options": {"evidence": True, "max_history": 4}}
LISTED = {"readout": "likelihood", "options": {}}

#: Recommenders that are fused with two adapters.
FUSED = {
    "sasrec": SASRec(SASRecConfig(epochs=1, hidden_size=8)),
    "item-knn": ItemKNN(),
    "tf-idf": TfIdf(),
    "popularity": Popularity(),
}


@pytest.fixture(scope="session")
def randomize_router() -> Callable[[Path, int], None]:
    """Replace the weights of a router by random ones, which differ by user."""

    def change(folder: Path, seed: int) -> None:
        path = folder / "personal" / "personal.safetensors"
        state = {name: tensor.clone() for name, tensor in load_file(path).items()}
        state["router.out_weight"].normal_(0, 0.2, generator=torch.Generator().manual_seed(seed))
        save_file(state, path)

    return change


@pytest.fixture(scope="session")
def write_user_router(randomize_router: Callable[[Path, int], None]) -> Callable[..., None]:
    """Write a folder of `personal train-router` over adapters in the same folder; its weights differ by user."""

    def write(
        backbone: Backbone,
        folder: Path,
        parts: Sequence[str],
        dataset: Dataset,
        split: Split,
        ctr_model: str = "titles",
        cases: int = 4,
    ) -> None:
        adapters = [folder.parent / name for name in parts]
        config = UserRouterConfig(epochs=1, cases=cases)
        train_user_router(backbone, adapters, dataset, split, folder, config, ctr_model=ctr_model)
        randomize_router(folder, 0)

    return write


def _shop() -> Dataset:
    rows = [(f"u{k // 6:02}", f"x{(k * 7 + k // 6) % 29:02}", k) for k in range(120)]
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    titles = [f"{COLOURS[k % 5]} {THINGS[k // 5]}" for k in range(30)]
    items = pl.DataFrame({"item_id": [f"x{k:02}" for k in range(30)], "title": titles})
    return Dataset.from_frames("shop", interactions, items)


@pytest.fixture(scope="session")
def shop() -> Dataset:
    """20 users with six of 30 items each; item x29 is new."""
    return _shop()


@pytest.fixture(scope="session")
def _written_adapters(
    shared_backbone: Backbone, write_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("written") / "adapters"
    for seed, (name, meta) in enumerate(
        [("general", EVIDENT), ("specific", EVIDENT), ("listed", LISTED), ("listed2", LISTED)]
    ):
        write_adapter(shared_backbone.model, folder / name, seed, meta)
    (folder / "notes").mkdir()
    return folder


@pytest.fixture
def adapters(_written_adapters: Path, tmp_path: Path) -> Path:
    """`general` and `specific` read evidence, `listed` and `listed2` lists of candidates; a copy for each test."""
    return Path(shutil.copytree(_written_adapters, tmp_path / "adapters"))


@pytest.fixture
def example_folder(
    backbone_folder: Path, write_adapter: Callable[..., Path], write_user_router: Callable[..., None], tmp_path: Path
) -> Path:
    """Folder for the examples of the serving guide: a shop, four adapters and a user router over two of them."""
    backbone = Backbone.from_pretrained(backbone_folder)
    rows = [(user, f"i{k * 3 % 10 + place}", k) for place, user in enumerate(("u42", "u7", "u8")) for k in range(6)]
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    titles = [f"{COLOURS[k % 5]} {THINGS[k // 5]}" for k in range(20)]
    items = pl.DataFrame({"item_id": [f"i{k}" for k in range(20)], "title": titles}).with_columns(
        price=pl.Series(range(11, 31)),
        region=pl.Series(["DE", "AT", "FR"] * 6 + ["DE", "AT"]),
        brand=pl.Series(["Lux", "Nord"] * 10),
        in_stock=pl.Series([True, True, False, False] * 5),
    )
    dataset = Dataset.from_frames("shop", interactions, items).save(tmp_path / "data" / "shop")
    for seed, name in enumerate(("general", "specific", "shop", "mixed")):
        write_adapter(backbone.model, tmp_path / "adapters" / name, seed, EVIDENT)
    parts, split = ("general", "shop"), leave_one_out(dataset, negatives=3)
    write_user_router(backbone, tmp_path / "adapters" / "by-user", parts, dataset, split)
    return tmp_path


class Offline:
    """The adapters of a service, scored without it."""

    def __init__(self, backbone: Backbone, folder: Path, dataset: Dataset) -> None:
        self.backbone = replace(backbone, model=copy.deepcopy(backbone.model))
        self.adapters = {path.name: read_adapter(path) for path in folder.iterdir() if path.name != "notes"}
        for name, adapter in self.adapters.items():
            tensors = {layer: (a.clone(), b.clone()) for layer, (a, b) in adapter.tensors.items()}
            self.adapters[name] = replace(adapter, tensors=tensors)
        self.dataset = dataset

    @cached_property
    def evidence(self) -> Cooccurrence:
        """Co-occurrence counts of all interactions."""
        return dataset_cooccurrence(self.dataset)

    def scores(
        self, mixture: dict[str, float], user: str | None, history: Sequence[str], candidates: Sequence[str]
    ) -> np.ndarray:
        """Score item ids by a Ranker with the mixture merged into the weights."""
        merged = None
        if mixture:
            parts = [self.adapters[name] for name in mixture]
            merged = AdapterBank.stack(parts).to_adapter(torch.tensor(list(mixture.values())), "factors")
            merged = replace(merged, record=parts[0].record)
        columns = {"user_id": [user], "history": [list(history)], "candidates": [list(candidates)]}
        cases = pl.DataFrame(columns, schema_overrides={"user_id": pl.String, "history": pl.List(pl.String)})
        with Ranker(self.backbone, merged) as ranker:
            return ranker.score_cases(cases, self.dataset.titles, self.evidence)[0]


@pytest.fixture
def offline(tiny_backbone: Backbone, adapters: Path, shop: Dataset) -> Offline:
    """Give offline scores; made before a service changes the backbone."""
    return Offline(tiny_backbone, adapters, shop)


@pytest.fixture
def make_service(offline: Offline, tiny_backbone: Backbone, adapters: Path, tmp_path: Path) -> Callable[..., Service]:
    """Make a service with options other than the default ones.

    It keeps no prompts unless it is told to, so that it answers the same request with exactly the same scores: those on
    a cached prompt differ by rounding.
    """

    def make(load: Sequence[str] | None = None, **options: Any) -> Service:
        config = ServiceConfig(**{"wait_ms": 50, "prompt_cache": 0, **options})
        database = f"sqlite:///{tmp_path / 'histories.db'}"
        return Service(tiny_backbone, offline.dataset, adapters, database, config, load=load)

    return make


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    """A service with all adapters loaded."""
    return make_service()


@pytest.fixture(scope="session")
def shop_split(shop: Dataset) -> Split:
    """Split of the shop, whose training part lacks the last two interactions of each user."""
    return leave_one_out(shop, negatives=5)


@pytest.fixture(scope="session")
def fusion_folder(
    tokenizer: PreTrainedTokenizerFast, write_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Fusion of two adapters with different prompts, one of which reads evidence, and four recommenders."""
    folder, shop = tmp_path_factory.mktemp("fusion"), _shop()
    backbone = factories.make_backbone("qwen2", tokenizer)
    for seed, (name, meta) in enumerate({"shop": EVIDENT, "listed": LISTED}.items()):
        write_adapter(backbone.model, folder / name, seed, meta)
    adapters = {name: folder / name for name in ("shop", "listed")}
    config, split = FusionConfig(pool=12, hidden_items=0.2), leave_one_out(shop, negatives=5)
    fuse(shop, adapters, FUSED, folder / "fusion", backbone=backbone, split=split, config=config)
    return folder / "fusion"


@pytest.fixture
def offline_fusion(tiny_backbone: Backbone, fusion_folder: Path, shop: Dataset, shop_split: Split) -> Fusion:
    """The fusion with a backbone of its own."""
    backbone = replace(tiny_backbone, model=copy.deepcopy(tiny_backbone.model))
    return Fusion.load(fusion_folder, shop, backbone, shop_split)


@pytest.fixture
def make_fused(
    offline_fusion: Fusion,
    tiny_backbone: Backbone,
    adapters: Path,
    fusion_folder: Path,
    shop: Dataset,
    shop_split: Split,
    tmp_path: Path,
) -> Callable[..., Service]:
    """Make a service with the fusion, as `make_service` does; made after the offline fusion has copied the backbone."""

    def make(folder: Path | None = adapters, **options: Any) -> Service:
        fusion = Fusion.load(fusion_folder, shop, tiny_backbone, shop_split)
        config = ServiceConfig(**{"wait_ms": 50, "pool": 12, "prompt_cache": 0, **options})
        return Service(tiny_backbone, shop, folder, f"sqlite:///{tmp_path / 'fused.db'}", config, fusion=fusion)

    return make


@asynccontextmanager
async def _client(
    service: Service, key: str | None, config: HttpConfig | None, base_url: str
) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(service, key, config)
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url=base_url, timeout=60) as client,
    ):
        yield client


@pytest.fixture
def play() -> Callable[..., Any]:
    """Run a scenario against a service from its start to its stop."""

    def run(
        service: Service,
        scenario: Scenario,
        key: str | None = None,
        config: HttpConfig | None = None,
        base_url: str = "http://localhost",
    ) -> Any:
        async def whole() -> Any:
            async with _client(service, key, config, base_url) as client:
                return await scenario(client)

        return asyncio.run(whole())

    return run


@pytest.fixture(scope="module")
def play_shared(
    tokenizer: PreTrainedTokenizerFast, shop: Dataset, _written_adapters: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Scenario], Any]]:
    """Run a scenario that changes nothing, such as a refused request, against one service for the whole module."""
    backbone, database = factories.make_backbone("qwen2", tokenizer), tmp_path_factory.mktemp("shared") / "histories.db"
    config = ServiceConfig(wait_ms=50, prompt_cache=0)
    service = Service(backbone, shop, _written_adapters, f"sqlite:///{database}", config)
    opened = _client(service, None, None, "http://localhost")
    with asyncio.Runner() as runner:
        client = runner.run(opened.__aenter__())

        async def whole(scenario: Scenario) -> Any:
            return await scenario(client)

        yield lambda scenario: runner.run(whole(scenario))
        runner.run(opened.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def database_becomes() -> Callable[..., Awaitable[None]]:
    """Wait until /readyz and /healthz report a state of the database; fail after ten seconds."""

    async def wait(client: httpx2.AsyncClient, database: str) -> None:
        for path in ("/readyz", "/healthz"):
            began = time.monotonic()
            while True:
                asked = time.monotonic()
                answer = await client.get(path)
                assert time.monotonic() - asked < 5
                if answer.json()["database"] == database:
                    break
                assert time.monotonic() - began < 10, (database, answer.text)
                await asyncio.sleep(0.05)
            assert answer.status_code == (200 if database == "ok" else 503)
        assert (await client.get("/livez")).status_code == 200

    return wait


@contextmanager
def _served(service: Service, key: str | None = None, config: HttpConfig | None = None) -> Iterator[str]:
    bound = listen("127.0.0.1", 0)
    server = Server(service, key, grace=5, config=config)
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def served() -> Callable[..., AbstractContextManager[str]]:
    """Serve a service on a free port; gives the URL."""
    return _served


@pytest.fixture(scope="session")
def serve_options(
    backbone_folder: Path, write_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Arguments of `lorarec serve` for the shop with the adapter `general`, without a database."""
    folder = tmp_path_factory.mktemp("serve")
    _shop().save(folder / "shop")
    write_adapter(Backbone.from_pretrained(backbone_folder).model, folder / "adapters" / "general", 0, EVIDENT)
    return [str(folder / "shop"), "--adapters", str(folder / "adapters"), "--backbone", str(backbone_folder)]


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of its own; the test is skipped where PostgreSQL is not installed."""
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: on Debian, apt-get install postgresql")
    with postgres_server(programs) as server:
        yield server


class Process:
    """`lorarec serve` in a process of its own, on a free port of this machine.

    Args:
        descriptors: Limit on its file descriptors.

    Attributes:
        log: File of its standard error.
        url: Its URL, after `wait` has returned.
    """

    def __init__(self, options: Sequence[str], key: str | None, log: Path, descriptors: int | None = None) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(lorarec.__file__).parents[1])}
        environment.pop("LORAREC_API_KEY", None)
        if key is not None:
            environment["LORAREC_API_KEY"] = key
        command = [sys.executable, "-m", "lorarec", "serve", *options, "--port", "0"]
        if descriptors is not None:
            command = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *command]
        self.log, self.url = log, ""
        with log.open("w") as stderr:
            self.process = subprocess.Popen(command, env=environment, stderr=stderr)

    def wait(self) -> None:
        """Wait until it responds."""
        while not (found := re.search(r"on http://\S+:(\d+)$", self.log.read_text(), re.MULTILINE)):
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        self.url = f"http://127.0.0.1:{found[1]}"
        while True:
            try:
                httpx2.get(f"{self.url}/livez", timeout=60)
                return
            except httpx2.TransportError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.05)


@contextmanager
def _started(
    options: Sequence[str], key: str | None = None, count: int = 1, descriptors: int | None = None
) -> Iterator[list[Process]]:
    with tempfile.TemporaryDirectory() as folder:
        replicas = [Process(options, key, Path(folder) / f"log{place}", descriptors) for place in range(count)]
        try:
            for replica in replicas:
                replica.wait()
            yield replicas
        finally:
            for replica in replicas:
                replica.process.kill()
                replica.process.wait()


@pytest.fixture(scope="session")
def started() -> Callable[..., AbstractContextManager[list[Process]]]:
    """Run `lorarec serve` with options, as several replicas that start together; they are killed at the end."""
    return _started


#: Titles and a user id that would run scripts if they were inserted as markup.
EVIL = ['<img src=x onerror="window.ran = 1">', "<script>window.ran = 1</script>", "'\"><b onclick=ran()>bold</b>"]
EVIL_USER = "<i>mallory</i>/?&#%"


@pytest.fixture(scope="session")
def make_page_service(
    write_adapter: Callable[..., Path], write_user_router: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Service]:
    """A service over the embedded backbone for a browser.

    The weights of its adapter `layered` differ by layer, those of `chosen` by user as well.
    """
    folder = tmp_path_factory.mktemp("page")
    backbone = Backbone.from_pretrained("embedded")
    for seed, name in enumerate(["general", "specific", "layered"]):
        write_adapter(backbone.model, folder / "adapters" / name, seed, EVIDENT)
    layers = read_adapter(folder / "adapters" / "layered").tensors
    weights = {layer: [place / len(layers), 1 - place / len(layers)] for place, layer in enumerate(layers)}
    made = {"mix": {"weights": weights}, "adapters": [{"path": "old/general"}, {"path": "old/specific"}]}
    (folder / "adapters" / "layered" / "lorarec.json").write_text(json.dumps(EVIDENT | made))
    titles = [f"{COLOURS[k % 5]} {THINGS[k // 5]}" for k in range(30)] + EVIL
    items = pl.DataFrame({"item_id": [f"x{k:02}" for k in range(len(titles))], "title": titles})
    rows = [(f"u{k // 6:02}", f"x{(k * 7 + k // 6) % 29:02}", k) for k in range(120)]
    rows += [(EVIL_USER, f"x{k:02}", k) for k in (3, 31)]
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    dataset = Dataset.from_frames("shop", interactions, items)
    parts, split = ("general", "specific"), leave_one_out(dataset, negatives=3)
    write_user_router(backbone, folder / "adapters" / "chosen", parts, dataset, split)

    def make(load: Sequence[str] | None = None, **options: Any) -> Service:
        model = replace(backbone, model=copy.deepcopy(backbone.model))
        database = f"sqlite:///{tmp_path_factory.mktemp('histories') / 'page.db'}"
        return Service(model, dataset, folder / "adapters", database, ServiceConfig(**options), load=load)

    return make


@pytest.fixture(scope="session")
def page_url(make_page_service: Callable[..., Service]) -> Iterator[str]:
    """URL of a service without an API key."""
    with _served(make_page_service()) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; for one module, since other tests' event loops cannot run beside Playwright's."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("there is no Chromium: apt-get install chromium, or playwright install chromium")
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        expect.set_options(timeout=20_000)
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, page_url: str) -> Iterator[Page]:
    """The page after loading; an error in the console fails the test."""
    with browser.new_context(reduced_motion="reduce") as context:
        context.set_default_timeout(20_000)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(page_url)
        expect(page.get_by_label("First adapter", exact=True)).to_have_value("general")
        yield page
        unexpected = [text for text in complaints if "status of 4" not in text and "ERR_INTERNET" not in text]
        assert unexpected == []
