"""`lorarec serve` under closed-loop clients: requests that share batches against one request at a time.

Each client sends its next request when it has the answer to the last. Requests are of random users of the bundled
sample with 30 candidates each, under four mixtures of two random adapters of rank 16; every answer is compared with the
offline Ranker's. The server runs in a process of its own and shares the cores with the clients.

With `--soak` the clients go on for so many minutes while 60 new users and 60 made-up titles come each second, for
events, recommendations and rankings, an adapter is reloaded, and the server's resident memory is printed.

With `--fusion`, clients ask for recommendations instead, in turns by an adapter and by a fusion of this adapter,
SASRec, GRU4Rec, UniSRec, sequential rules, EASE, item-knn, TF-IDF and popularity over the same pools, and the ratio of
the two costs is printed.

With `--repeat`, users ask for rankings of several candidate sets in a row, so that this share of all requests has a
prompt that was read before, and a server with the cache of prompts takes turns with one without it. All other
measurements but the soak are without the cache.

    python benchmarks/serving_load.py --seconds 30
    python benchmarks/serving_load.py --soak 20 --clients 2
    python benchmarks/serving_load.py --fusion --clients 1 4 --seconds 10
    python benchmarks/serving_load.py --repeat 0.5 --clients 1 16 --requests 640
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import httpx2
import numpy as np
import polars as pl
import psutil
import torch
from peft import LoraConfig, get_peft_model

from lorarec import AsyncClient, Client, ServiceError
from lorarec.backbone import Backbone
from lorarec.data import Dataset, histories_of
from lorarec.data.sample import load_sample
from lorarec.lora import AdapterBank, read_adapter
from lorarec.ranking import Fusion, Ranker, fuse, log_prior
from lorarec.recommenders import (
    EASE,
    LSA,
    FusionConfig,
    GRU4Rec,
    GRU4RecConfig,
    ItemKNN,
    Popularity,
    Recommender,
    SASRec,
    SASRecConfig,
    SequentialRules,
    TfIdf,
    UniSRec,
    UniSRecConfig,
)

MIXTURES = [{"general": 1.0}, {"specific": 1.0}, {"general": 0.3, "specific": 0.7}, {"general": 0.6, "specific": 0.4}]
CANDIDATES = 30
#: Candidates of a recommendation, and how many of them are returned.
POOL, TOP = 100, 10
#: Rounds in which the adapter and the fusion take turns, and those in which the servers with and without a cache do.
ROUNDS, CACHE_ROUNDS = 3, 5
#: Option of a server that reads every prompt.
NO_CACHE = ("--prompt-cache", "0")
#: Scores further than this from the offline ones count as wrong.
TOLERANCE = 1e-3
#: New users, and new titles, per second of a soak.
NEW_PER_SECOND = 60
#: Seconds between two looks at the server's memory.
LOOK = 30
#: Share of a soak after which memory is expected to stay.
WARM = 0.2


@dataclass(frozen=True)
class Asked:
    """A request and the scores it must get."""

    body: dict[str, Any]
    scores: np.ndarray
    call: Literal["rank", "recommend"] = "rank"


@dataclass(frozen=True)
class LoadResult:
    """What clients got.

    Attributes:
        latencies: Seconds of each answer.
        worst: Largest difference of a score to the offline one.
        wrong: Number of answers with other scores than offline, or without some.
        refused: Number of requests without an answer, such as those that met a full queue (429).
    """

    latencies: list[float] = field(default_factory=list)
    worst: float = 0.0
    wrong: int = 0
    refused: int = 0

    def __add__(self, other: "LoadResult") -> "LoadResult":
        wrong, refused = self.wrong + other.wrong, self.refused + other.refused
        return LoadResult(self.latencies + other.latencies, max(self.worst, other.worst), wrong, refused)

    @property
    def counts(self) -> str:
        """Numbers of wrong answers and of refusals in words."""
        return (
            f"{self.wrong} of {len(self.latencies)} answers wrong (largest difference {self.worst:.0e}), "
            f"{self.refused} requests refused"
        )


def write_adapters(backbone: Backbone, folder: Path) -> None:
    torch.manual_seed(0)
    for name in ("general", "specific"):
        model = get_peft_model(backbone.model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.02)
        model.save_pretrained(str(folder / name))
        model.unload()


def make_requests(backbone: Backbone, data: Dataset, folder: Path, count: int, repeat: float = 0.0) -> list[Asked]:
    """Requests in which a user comes once or, with `repeat`, several times in a row under the same mixture."""
    rng = np.random.default_rng(0)
    adapters = [read_adapter(folder / name) for name in ("general", "specific")]
    visits = np.floor(np.arange(count) * (1 - repeat)).astype(int)
    cases = histories_of(data.interactions).sample(visits[-1] + 1, seed=0, with_replacement=True)[visits]
    items = data.items["item_id"].to_list()
    drawn = [[items[i] for i in rng.choice(len(items), CANDIDATES, replace=False)] for _ in range(count)]
    cases = cases.with_columns(pl.Series("candidates", drawn))
    made: dict[int, Asked] = {}
    for number, mixture in enumerate(MIXTURES):
        weights = torch.tensor([mixture.get("general", 0.0), mixture.get("specific", 0.0)])
        merged = AdapterBank.stack(adapters).to_adapter(weights, "factors")
        places = np.flatnonzero(visits % len(MIXTURES) == number).tolist()
        mine = cases[places]
        with Ranker(backbone, replace(merged, record=adapters[0].record)) as ranker:
            scores = ranker.score_cases(mine, data.titles)
        for place, user, candidates, expected in zip(places, mine["user_id"], mine["candidates"], scores, strict=True):
            body = {"user_id": user, "candidates": candidates.to_list(), "adapter": mixture}
            made[place] = Asked(body, expected)
    return [made[place] for place in range(count)]


@contextmanager
def served(folder: Path, *options: str) -> Iterator[tuple[str, int]]:
    """The server's address and process id."""
    words = [str(folder / "data"), "--adapters", str(folder / "adapters"), "--port", "0", *options]
    command = [sys.executable, "-m", "lorarec", "serve", *words]
    environment = {name: value for name, value in os.environ.items() if name != "LORAREC_API_KEY"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"on (http://\S+)$", line.strip())
        if found is None:
            raise SystemExit(line + process.stderr.read())
        with Client(found[1], retries=9) as client:
            client.users()
        yield found[1], process.pid
    finally:
        process.terminate()
        process.wait()


async def closed_loop(url: str, requests: list[Asked], clients: int, seconds: float | None) -> LoadResult:
    """Send requests, each client the next one when it has the answer to the last one.

    Requests are drawn at random for so many seconds; if `seconds` is None, each client sends its part of them once.
    """
    rng = np.random.default_rng(clients)
    latencies: list[float] = []
    worst, wrong, refused = 0.0, 0, 0
    async with AsyncClient(url, timeout=120, retries=0) as session:

        async def client(order: np.ndarray) -> None:
            nonlocal worst, wrong, refused
            for number in order:
                if end is not None and time.perf_counter() > end:
                    return
                began = time.perf_counter()
                asked = requests[number]
                try:
                    ranked = (await getattr(session, asked.call)(**asked.body)).ranking
                except ServiceError:
                    refused += 1
                    continue
                latencies.append(time.perf_counter() - began)
                found = {item.candidate: item.score for item in ranked}
                differences = [abs(score - asked.scores[place]) for place, score in found.items()]
                is_whole = len(found) == asked.body.get("top", len(asked.scores))
                difference = float(max(differences)) if is_whole else np.nan
                worst = max(worst, difference)
                wrong += not difference <= TOLERANCE

        if seconds is None:
            end, orders = None, np.array_split(np.arange(len(requests)), clients)
        else:
            end = time.perf_counter() + seconds
            orders = [rng.integers(len(requests), size=100_000) for _ in range(clients)]
        await asyncio.gather(*(client(order) for order in orders))
    return LoadResult(latencies, worst, wrong, refused)


def read_metrics(url: str, *names: str) -> list[float]:
    text = httpx2.get(f"{url}/metrics").text
    found = [re.search(rf"^lorarec_{name} (\S+)$", text, re.MULTILINE) for name in names]
    return [float(match[1]) if match else 0.0 for match in found]


def batches(url: str) -> tuple[float, float, float]:
    """Requests scored, passes and seconds in passes so far."""
    rows, passes, seconds = read_metrics(url, "batch_size_sum", "batch_size_count", "batch_seconds_sum")
    return rows, passes, seconds


def prompt_hits(url: str) -> tuple[float, float]:
    """Prompts that were found in the cache, and prompts that were read, so far."""
    hits, misses = read_metrics(url, "prompt_cache_hits_total", "prompt_cache_misses_total")
    return hits, misses


def load(folder: Path, requests: list[Asked], counts: list[int], seconds: float) -> None:
    for way, options in {"shared batches": (), "one at a time": ("--token-budget", "1", "--instances", "1")}.items():
        with served(folder, *NO_CACHE, *options) as (url, _):
            asyncio.run(closed_loop(url, requests, 1, 2))
            for clients in counts:
                before = batches(url)
                began = time.perf_counter()
                result = asyncio.run(closed_loop(url, requests, clients, seconds))
                took = time.perf_counter() - began
                rows, passes, busy = (new - old for new, old in zip(batches(url), before, strict=True))
                p50, p99 = statistics.median(result.latencies), float(np.quantile(result.latencies, 0.99))
                print(
                    f"{way:14} {clients:3} clients: {len(result.latencies) / took:6.1f} requests/s, "
                    f"p50 {1000 * p50:6.0f} ms, p99 {1000 * p99:6.0f} ms, {rows / passes:5.1f} per pass, "
                    f"{100 * busy / took:3.0f}% of the time in passes; {result.counts}",
                    flush=True,
                )


def compare_cache(folder: Path, requests: list[Asked], counts: list[int]) -> None:
    """Requests per second with the cache of prompts and without it, in turns, by requests that come once to each."""
    blocks = iter([part.tolist() for part in np.array_split(np.arange(len(requests)), len(counts) * CACHE_ROUNDS)])
    with served(folder) as (cached, _), served(folder, *NO_CACHE) as (uncached, _):
        for clients in counts:
            rates: dict[str, list[float]] = {cached: [], uncached: []}
            total, hits = LoadResult(), prompt_hits(cached)
            for turn in range(CACHE_ROUNDS):
                block = [requests[place] for place in next(blocks)]
                for url in (cached, uncached) if turn % 2 else (uncached, cached):
                    began = time.perf_counter()
                    result = asyncio.run(closed_loop(url, block, clients, None))
                    rates[url].append(len(result.latencies) / (time.perf_counter() - began))
                    total += result
            ratios = np.array(rates[cached]) / np.array(rates[uncached])
            found, read = (new - old for new, old in zip(prompt_hits(cached), hits, strict=True))
            print(
                f"{clients:3} clients, {100 * found / (found + read):.0f}% of the prompts cached: "
                f"{np.median(rates[cached]):.1f} requests/s with the cache, {np.median(rates[uncached]):.1f} without, "
                f"ratio {np.median(ratios):.2f} (rounds {', '.join(f'{ratio:.2f}' for ratio in ratios)}); "
                f"{total.counts}",
                flush=True,
            )


def make_fusion(backbone: Backbone, data: Dataset, folder: Path) -> Fusion:
    recommenders: dict[str, Recommender[Any]] = {
        "sasrec": SASRec(SASRecConfig(epochs=3)),
        "gru4rec": GRU4Rec(GRU4RecConfig(epochs=3)),
        "unisrec": UniSRec(UniSRecConfig(text_encoder=LSA, pretrain_epochs=0, epochs=3)),
        **{"sequential-rules": SequentialRules(), "ease": EASE()},
        **{"item-knn": ItemKNN(), "tf-idf": TfIdf(), "popularity": Popularity()},
    }
    adapters = {"general": folder / "adapters" / "general"}
    config = FusionConfig(cases=100)
    return fuse(data, adapters, recommenders, folder / "fusion", backbone=backbone, config=config)


def make_recommendation_requests(
    fusion: Fusion, backbone: Backbone, data: Dataset, folder: Path, count: int
) -> dict[str, list[Asked]]:
    """Requests for the same users by the adapter and by the fusion."""
    index = fusion.index()
    cases = histories_of(data.interactions).sample(count, seed=0)
    pools = [[each.item_id for each in index.propose(history, POOL)] for history in cases["history"].to_list()]
    cases = cases.with_columns(pl.Series("candidates", pools))
    fused = [each.log_probabilities for each in fusion.score_with_parts(cases, pool=True)]
    with Ranker(backbone, folder / "adapters" / "general") as ranker:
        ranked = [scores + log_prior(len(scores)) for scores in ranker.score_cases(cases, data.titles)]
    return {
        name: [
            Asked({"user_id": user, "top": TOP, **adapter}, scores, "recommend")
            for user, scores in zip(cases["user_id"], expected, strict=True)
        ]
        for name, adapter, expected in (("adapter", {"adapter": "general"}, ranked), ("fusion", {}, fused))
    }


def compare_fusion(url: str, process: int, requests: dict[str, list[Asked]], counts: list[int], seconds: float) -> None:
    """Costs of a recommendation by the adapter and by the fusion, in turns, so that both meet the same other load."""
    for clients in counts:
        latencies: dict[str, list[float]] = {name: [] for name in requests}
        cpu_seconds: dict[str, list[float]] = {name: [] for name in requests}
        total = LoadResult()
        for _ in range(ROUNDS):
            for name, asked in requests.items():
                before = sum(psutil.Process(process).cpu_times()[:2])
                result = asyncio.run(closed_loop(url, asked, clients, seconds))
                used = sum(psutil.Process(process).cpu_times()[:2]) - before
                cpu_seconds[name].append(used / len(result.latencies))
                latencies[name] += result.latencies
                total += result
        p50 = {name: statistics.median(times) for name, times in latencies.items()}
        for name, times in latencies.items():
            print(
                f"{name:8} {clients:3} clients: {len(times)} answers, p50 {1000 * p50[name]:6.0f} ms, "
                f"{1000 * np.mean(cpu_seconds[name]):6.1f} ms of the server's CPU time per answer"
            )
        ratios = np.array(cpu_seconds["fusion"]) / np.array(cpu_seconds["adapter"])
        print(
            f"ratio    {clients:3} clients: p50 {p50['fusion'] / p50['adapter']:.2f}, CPU time {np.median(ratios):.2f} "
            f"(rounds {', '.join(f'{ratio:.2f}' for ratio in ratios)}); {total.counts}",
            flush=True,
        )


async def soak(url: str, process: int, requests: list[Asked], clients: int, minutes: float) -> None:
    """Memory over time under checked requests, events, recommendations and reloads of an adapter."""
    began = time.perf_counter()
    looks: list[tuple[float, float]] = []
    seen = [0]

    async def visitors(session: AsyncClient) -> None:
        """New users and new titles, so many each second: events, a recommendation, and a ranking of the titles."""
        for second in count():
            item = requests[second % len(requests)].body["candidates"][0]
            numbers = range(second * NEW_PER_SECOND, (second + 1) * NEW_PER_SECOND)
            await session.store_events(
                [{"user_id": f"visitor {each}", "item_id": item, "event_id": f"click {each}"} for each in numbers]
            )
            await session.recommend(user_id=f"visitor {numbers[0]}", adapter="general")
            titles = [{"title": f"The Return of Visitor {each}"} for each in numbers]
            await session.rank(titles, user_id=f"visitor {numbers[0]}", adapter="general")
            seen[0] += NEW_PER_SECOND
            await asyncio.sleep(max(0.0, second + 1 - (time.perf_counter() - began)))

    async def look(session: AsyncClient) -> None:
        while True:
            await session.load_adapter("specific")
            looks.append((time.perf_counter() - began, psutil.Process(process).memory_info().rss / 2**20))
            done = (await asyncio.to_thread(batches, url))[0]
            print(f"{looks[-1][0] / 60:5.1f} min: {looks[-1][1]:7.1f} MiB, {done:7.0f} requests", flush=True)
            await asyncio.sleep(LOOK)

    async with AsyncClient(url, timeout=120) as session:
        others = [asyncio.ensure_future(work(session)) for work in (visitors, look)]
        result = await closed_loop(url, requests, clients, 60 * minutes)
        for other in others:
            if other.done():
                other.result()
            other.cancel()
    seconds, memory = np.array([found for found in looks if found[0] >= WARM * 60 * minutes]).T
    print(
        f"soak of {minutes:g} min, {clients} clients: {result.counts}, {seen[0]:,} new users and titles, "
        f"{len(looks)} reloads; "
        f"{memory[0]:.1f} MiB after {seconds[0] / 60:.1f} min, "
        f"{memory[-1]:.1f} MiB at the end, slope {3600 * np.polyfit(seconds, memory, 1)[0]:+.1f} MiB per hour"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=30, help="for each number of clients")
    parser.add_argument("--requests", type=int, default=400, help="different requests, drawn at random")
    parser.add_argument("--fusion", action="store_true", help="compare recommendations of an adapter and of a fusion")
    parser.add_argument("--repeat", type=float, metavar="SHARE", help="compare servers with and without cached prompts")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="watch the memory under the first of --clients")
    arguments = parser.parse_args()
    backbone = Backbone.from_pretrained()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = load_sample().save(folder / "data")
        write_adapters(backbone, folder / "adapters")
        if arguments.fusion:
            fusion = make_fusion(backbone, data, folder)
            pairs = make_recommendation_requests(fusion, backbone, data, folder, arguments.requests)
            with served(folder, "--fusion", str(folder / "fusion"), "--pool", str(POOL), *NO_CACHE) as (url, process):
                for asked in pairs.values():
                    asyncio.run(closed_loop(url, asked, 1, 2))
                compare_fusion(url, process, pairs, arguments.clients, arguments.seconds)
            return
        requests = make_requests(backbone, data, folder / "adapters", arguments.requests, arguments.repeat or 0.0)
        if arguments.repeat is not None:
            compare_cache(folder, requests, arguments.clients)
            return
        if arguments.soak is None:
            load(folder, requests, arguments.clients, arguments.seconds)
            return
        with served(folder) as (url, process):
            asyncio.run(soak(url, process, requests, arguments.clients[0], arguments.soak))


if __name__ == "__main__":
    main()
