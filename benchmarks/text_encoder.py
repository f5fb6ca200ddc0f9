"""What a sentence encoder adds: rankings by titles, UniSRec, and the index, with and without it.

Two tables for each setting: NDCG among the candidates of test users, and Recall@100 and NDCG@10 of the index over the
whole catalogue. `sum` adds the scores of tf-idf and text-similarity after each is divided by its standard deviation
over the candidates of 2,000 validation users. UniSRec is pre-trained on the domains of --general; without them there is
no pre-training, and its Transformer is trained on the dataset as well. The index learns from the training part, and
both indexes have the same next-item model.

    python benchmarks/text_encoder.py data/beauty --text-encoder sentence-transformers/all-MiniLM-L6-v2
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from lorarec.backbone import Backbone
from lorarec.data import Dataset, load_split
from lorarec.data.columns import HISTORY, TARGET
from lorarec.evaluation import sample_users
from lorarec.metrics import bootstrap_interval, hit_rate, ndcg, paired_t_test, target_ranks
from lorarec.prompts import true_places
from lorarec.recommenders import (
    Recommender,
    SASRecConfig,
    TextSimilarity,
    TextSimilarityConfig,
    TfIdf,
    TrainingData,
    UniSRec,
    UniSRecConfig,
)
from lorarec.retrieval import Index

DEPTHS = (1, 3, 10)
TABLES = ("titles", "unisrec", "index")


def main() -> None:
    """Print a table for each setting; p is of the paired t-test of NDCG@10 against the row without the encoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--text-encoder", required=True)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--general", nargs="*", type=Path, default=[], help="pre-training domains of UniSRec")
    parser.add_argument("--cache-dir", type=Path, help="folder of embeddings and pre-trained weights")
    parser.add_argument("--epochs", type=int, default=60, help="of UniSRec's fine-tuning")
    parser.add_argument("--index-epochs", type=int, default=20, help="of the index's next-item model; 0 for none")
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=TABLES, help="tables to print; all by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=1000, help="test users of each setting")
    arguments = parser.parse_args()
    dataset = Dataset.load(arguments.dataset)
    split = load_split(dataset)
    settings = {setting: sample_users(cases, arguments.limit, 0) for setting, cases in split.test.items()}
    split = replace(split, test={})
    general = [(each, load_split(each)) for each in map(Dataset.load, arguments.general)]
    backbone = Backbone.from_pretrained(arguments.backbone)
    data = TrainingData(dataset, split, general, backbone, arguments.cache_dir, arguments.seed, progress=True)
    if "titles" in arguments.tables:
        compare_titles(data, settings, arguments.text_encoder)
    if "unisrec" in arguments.tables:
        compare_unisrec(data, settings, arguments)
    if "index" in arguments.tables:
        search_catalogue(data, settings, arguments)


def compare_titles(data: TrainingData, settings: Mapping[str, pl.DataFrame], text_encoder: str) -> None:
    """Print NDCG among the candidates of the cases by titles alone."""
    rows: dict[str, Recommender[Any]] = {"tf-idf": TfIdf()}
    for name, encoder in (("text-similarity, backbone", None), ("text-similarity, encoder", text_encoder)):
        rows[name] = TextSimilarity(TextSimilarityConfig(text_encoder=encoder))
    fit_all(rows, data)
    parts = ["tf-idf", "text-similarity, encoder"]
    valid = sample_users(data.split.valid, 2000, 0)
    scale = {name: np.concatenate(rows[name].score(valid)).std() for name in parts}
    for setting, cases in settings.items():
        scores = {name: row.score(cases) for name, row in rows.items()}
        scores["sum"] = [
            sum(of_case / scale[name] for name, of_case in zip(parts, each, strict=True))
            for each in zip(*(scores[name] for name in parts), strict=True)
        ]
        show(scores, cases, f"{data.dataset.name}, {setting}: {len(cases):,} test users")


def compare_unisrec(data: TrainingData, settings: Mapping[str, pl.DataFrame], arguments: argparse.Namespace) -> None:
    """Print NDCG of UniSRec among the candidates of the cases."""
    transfer: dict[str, Any] = {} if arguments.general else {"pretrain_epochs": 0}
    rows: dict[str, Recommender[Any]] = {}
    for name, encoder in (("unisrec, backbone", None), ("unisrec, encoder", arguments.text_encoder)):
        rows[name] = UniSRec(
            UniSRecConfig(epochs=arguments.epochs, learning_rate=1e-3, text_encoder=encoder, **transfer)
        )
    fit_all(rows, data)
    for setting, cases in settings.items():
        scores = {name: row.score(cases) for name, row in rows.items()}
        show(scores, cases, f"{data.dataset.name}, {setting}: {len(cases):,} test users")


def fit_all(rows: Mapping[str, Recommender[Any]], data: TrainingData) -> None:
    """Fit every row and print how long it took."""
    for name, row in rows.items():
        begin = time.perf_counter()
        row.fit(data)
        print(f"{name}: fitted in {time.perf_counter() - begin:.0f} s", flush=True)


def search_catalogue(data: TrainingData, settings: Mapping[str, pl.DataFrame], arguments: argparse.Namespace) -> None:
    """Print Recall@100 and NDCG@10 of each source and of the pool of an index."""
    config = SASRecConfig(epochs=arguments.index_epochs)
    words = Index.build(data.dataset, config, data.split.train, seed=data.seed, progress=True)
    encoder = {"text_encoder": arguments.text_encoder, "cache_dir": data.cache_dir}
    encoded = Index.build(data.dataset, None, data.split.train, **encoder, progress=True)
    if words.next_item:
        encoded.sources = {"next": words.next_item, **encoded.sources}
    for setting, cases in settings.items():
        table = Table(title=f"{data.dataset.name}, {setting}: {len(cases):,} test users, whole catalogue")
        for column in ("source", "recall@100, tf-idf", "encoder", "p", "ndcg@10, tf-idf", "encoder", "p"):
            table.add_column(column)
        for source in ("title", "new", "pool"):
            ranks = [true_ranks(index, source, cases) for index in (words, encoded)]
            cells = []
            for values in ([hit_rate(each, 100) for each in ranks], [ndcg(each, 10) for each in ranks]):
                p = paired_t_test(*values) if (values[0] != values[1]).any() else 1.0
                cells += [*(f"{each.mean():.3f}" for each in values), f"{p:.4f}"]
            table.add_row(source, *cells)
        Console(width=160).print(table)


def true_ranks(index: Index, source: str, cases: pl.DataFrame) -> np.ndarray:
    """Return the ranks of the targets among 100 items of a source, or of the pool; infinite where not found."""
    ranks = []
    for history, target in cases.select(HISTORY, TARGET).iter_rows():
        pool = (
            [each.item_id for each in index.propose(history)] if source == "pool" else index.rank(source, history, 100)
        )
        ranks.append(pool.index(target) + 1 if target in pool else np.inf)
    return np.array(ranks)


def show(scores: Mapping[str, list[np.ndarray]], cases: pl.DataFrame, title: str) -> None:
    """Print NDCG, its interval and p-values."""
    table = Table(title=title)
    for column in ("row", *(f"ndcg@{depth}" for depth in DEPTHS), "95% of ndcg@1", "95% of ndcg@10", "p", "against"):
        table.add_column(column)
    ranks = {name: target_ranks(each, np.array(true_places(cases))) for name, each in scores.items()}
    without = {"text-similarity, encoder": "tf-idf", "sum": "tf-idf", "unisrec, encoder": "unisrec, backbone"}
    for name, places in ranks.items():
        gains = {depth: ndcg(places, depth) for depth in DEPTHS}
        intervals = ["{:.3f} to {:.3f}".format(*bootstrap_interval(gains[depth])) for depth in (1, 10)]
        p = f"{paired_t_test(gains[10], ndcg(ranks[without[name]], 10)):.4f}" if name in without else ""
        table.add_row(name, *(f"{gain.mean():.3f}" for gain in gains.values()), *intervals, p, without.get(name, ""))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
