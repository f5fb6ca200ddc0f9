"""Two-stage recommendation over a whole catalogue: what the index finds, and what the ranker makes of it.

On a dataset, for its test users (every item they have not had is a candidate; one is right): Recall@100 and NDCG@10 of
each source of the index alone, of their mix, and of the mix re-ranked in one pass. `next` is SASRec alone; p is of the
paired t-test of NDCG@10 against it. The index learns from the training part of the split.

    python benchmarks/catalogue.py data/beauty --adapter adapters/mixed --limit 1000

On a made-up catalogue: time to build, save and load an index, its size, and median and 99th percentile of the time of
one request, on one thread.

    python benchmarks/catalogue.py --synthetic 1000000
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.table import Table

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, histories_of, load_split
from lorarec.data.columns import CANDIDATES, HISTORY, ITEM, TARGET, TIME, TITLE, USER
from lorarec.metrics import bootstrap_interval, hit_rate, ndcg, paired_t_test
from lorarec.ranking import Ranker, log_prior
from lorarec.recommenders import SASRecConfig, make_evidence
from lorarec.retrieval import Index
from lorarec.retrieval.nearest import NearestVectors
from lorarec.retrieval.next_item_source import NextItemSource

PER_USER, WORDS_PER_TITLE, VOCABULARY = 10, 8, 50_000


def main() -> None:
    """Print one table per setting, or the figures of a made-up catalogue."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", type=Path)
    parser.add_argument("--adapter", help="re-ranks; the backbone alone without it")
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--limit", type=int, default=1000, help="test users of each setting")
    parser.add_argument("--pool", type=int, default=100)
    parser.add_argument("--epochs", type=int, help="of the next-item model; 20, and 1 for a made-up catalogue")
    parser.add_argument("--text-encoder", help="compares titles; TF-IDF without it")
    parser.add_argument("--synthetic", type=int, metavar="ITEMS", help="a made-up catalogue instead of a dataset")
    parser.add_argument("--users", type=int, default=200_000, help="of the made-up catalogue, with 10 items each")
    parser.add_argument("--requests", type=int, default=1000, help="timed requests")
    arguments = parser.parse_args()
    if arguments.synthetic:
        epochs = 1 if arguments.epochs is None else arguments.epochs
        scale(made_up(arguments.synthetic, arguments.users), epochs, arguments.pool, arguments.requests)
    elif arguments.dataset:
        epochs = 20 if arguments.epochs is None else arguments.epochs
        quality(Dataset.load(arguments.dataset), epochs, arguments)
    else:
        parser.error("give a dataset folder or --synthetic")


def quality(dataset: Dataset, epochs: int, arguments: argparse.Namespace) -> None:
    """Tables of the sources, the mix and the whole."""
    split = load_split(dataset)
    begin = time.perf_counter()
    config, encoder = SASRecConfig(epochs=epochs), arguments.text_encoder
    index = Index.build(dataset, config, split.train, text_encoder=encoder, progress=True)
    print(f"{dataset.name}: index of {len(index.items):,} items in {time.perf_counter() - begin:.0f} s", flush=True)
    with Ranker(Backbone.from_pretrained(arguments.backbone), arguments.adapter) as ranker:
        for setting in split.test:
            cases = split.test[setting]
            cases = cases.sample(min(arguments.limit, len(cases)), seed=0)
            found = first_stage(index, cases, arguments.pool)
            found["mix, re-ranked"] = reranked(ranker, dataset, split, cases, found["mix"])
            show(found, cases, f"{dataset.name}, {setting}: {len(cases):,} test users", arguments.pool)


def first_stage(index: Index, cases: pl.DataFrame, pool: int) -> dict[str, list[list[str]]]:
    """Row of the table -> the items it finds for each case, best first."""
    histories = cases[HISTORY].to_list()
    found = {name: [index.rank(name, history, pool) for history in histories] for name in index.sources}
    return found | {"mix": [[item.item_id for item in index.propose(history, pool)] for history in histories]}


def reranked(
    ranker: Ranker, dataset: Dataset, split: Split, cases: pl.DataFrame, pools: list[list[str]]
) -> list[list[str]]:
    """The pools in the order that `recommend` gives them."""
    evidence = make_evidence(ranker.prompt, dataset, split)
    queries = cases.select(USER, HISTORY).with_columns(pl.Series(CANDIDATES, pools))
    scores = ranker.score_cases(queries, dataset.titles, evidence, progress=True)
    return [
        [pool[place] for place in np.argsort(-values - log_prior(len(values)), kind="stable")]
        for pool, values in zip(pools, scores, strict=True)
    ]


def show(found: dict[str, list[list[str]]], cases: pl.DataFrame, title: str, pool: int) -> None:
    """Print Recall@pool and NDCG@10 with their intervals."""
    table = Table(title=title)
    for column in ("row", f"recall@{pool}", "95%", "ndcg@10", "95%", "p against next"):
        table.add_column(column)
    ranks = {name: true_ranks(lists, cases[TARGET].to_list()) for name, lists in found.items()}
    for name, places in ranks.items():
        gain = ndcg(places, 10)
        cells = [
            cell for values in (hit_rate(places, pool), gain) for cell in (f"{values.mean():.4f}", interval(values))
        ]
        other = name != "next" and "next" in ranks
        table.add_row(name, *cells, f"{paired_t_test(gain, ndcg(ranks['next'], 10)):.4f}" if other else "")
    Console().print(table)


def true_ranks(lists: list[list[str]], targets: list[str]) -> np.ndarray:
    """(cases,) place of the target item, 1 for the first; infinite where it was not found."""
    pairs = zip(lists, targets, strict=True)
    return np.array([items.index(target) + 1 if target in items else np.inf for items, target in pairs])


def interval(values: np.ndarray) -> str:
    low, high = bootstrap_interval(values)
    return f"{low:.4f} to {high:.4f}"


def made_up(items: int, users: int) -> Dataset:
    """Users choose neighbours of an item of their own; a tenth of the catalogue is new; words follow Zipf's law."""
    random = np.random.default_rng(0)
    spread = random.geometric(0.1, (users, PER_USER)) * random.choice([-1, 1], (users, PER_USER))
    chosen = (random.integers(0, items, (users, 1)) + spread) % items
    chosen[chosen % 10 == 0] += 1
    ids = pl.Series(ITEM, [f"i{item:08}" for item in range(items)])
    chances = 1 / np.arange(1, VOCABULARY + 1)
    words = random.choice(VOCABULARY, (items, WORDS_PER_TITLE), p=chances / chances.sum())
    interactions = pl.DataFrame(
        {
            USER: np.repeat(np.arange(users), PER_USER),
            ITEM: ids.gather(chosen.ravel() % items),
            TIME: np.tile(np.arange(PER_USER), users),
        }
    )
    titles = [" ".join(f"w{word}" for word in row) for row in words]
    return Dataset.from_frames("made up", interactions, pl.DataFrame({ITEM: ids, TITLE: titles}))


def scale(dataset: Dataset, epochs: int, pool: int, requests: int) -> None:
    """Print times and sizes."""
    print(
        "{items:,} items, {users:,} users, {interactions:,} interactions".format(**dataset.info["counts"]), flush=True
    )
    with timed("build without next-item model"):
        Index.build(dataset)
    with timed(f"build with a next-item model of {epochs} epochs"):
        index = Index.build(dataset, SASRecConfig(epochs=epochs))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "index"
        with timed("save"):
            index.save(out)
        print(f"size: {sum(path.stat().st_size for path in out.iterdir()) / 2**20:.0f} MiB", flush=True)
        with timed("load"):
            index = Index.load(out, dataset)
    torch.set_num_threads(1)
    histories = histories_of(dataset.interactions)[HISTORY].head(requests).to_list()
    latencies("the whole request", histories, lambda history: index.propose(history, pool))
    for name in index.sources:
        latencies(name, histories, partial(index.rank, name, count=pool))
    if index.next_item:
        share = share_found(index, index.next_item, histories[:100], pool)
        print(f"share of the exact {pool} that `next` finds: {share:.3f}")


def share_found(index: Index, source: NextItemSource, histories: list[list[str]], pool: int) -> float:
    """Of the items with the truly largest inner products, those that the inverted file finds."""
    found = [set(index.rank("next", history, pool)) for history in histories]
    source.nearest = NearestVectors(source.nearest.vectors)
    exact = [set(index.rank("next", history, pool)) for history in histories]
    return float(np.mean([len(a & b) / len(b) for a, b in zip(found, exact, strict=True)]))


@contextmanager
def timed(what: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - begin:.1f} s", flush=True)


def latencies(name: str, histories: list[list[str]], ask: Callable[[list[str]], object]) -> None:
    seconds = []
    for history in histories:
        begin = time.perf_counter()
        ask(history)
        seconds.append(time.perf_counter() - begin)
    p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
    print(f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
