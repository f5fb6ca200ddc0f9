"""What sequential rules add to an index, with and without a next-item model: Recall@100, NDCG@10 and time of its pool.

Every item that a test user did not choose before is a candidate. The index learns from the training part of the split.
Each row leaves out sources; p is of the paired t-test against the same row without the rules. The time is that of the
processor, for the search of all sources of the row.

    python benchmarks/index_sources.py data/beauty
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from lorarec.data import Dataset, load_split
from lorarec.data.columns import HISTORY, TARGET
from lorarec.evaluation import sample_users
from lorarec.metrics import bootstrap_interval, hit_rate, ndcg, paired_t_test
from lorarec.recommenders import SASRecConfig
from lorarec.retrieval import Index
from lorarec.retrieval.source import CandidateSource

POOL, DEPTH = 100, 10
#: Rows: sources that are left out.
ROWS: Mapping[str, tuple[str, ...]] = {
    "all sources": (),
    "without rules": ("rules",),
    "without next": ("next",),
    "without next and rules": ("next", "rules"),
}


class StoredRankings:
    """A source that searches once for each history, so that every row reads the same rankings.

    Attributes:
        seconds: Time of the searches.
    """

    max_history: ClassVar[int] = 0

    def __init__(self, source: CandidateSource) -> None:
        self.source = source
        self.found: dict[bytes, np.ndarray] = {}
        self.seconds = 0.0

    def find(self, history: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """See `CandidateSource.find`."""
        key = history.tobytes()
        if key not in self.found:
            begin = time.process_time()
            self.found[key] = self.source.find(history, count, blocked)
            self.seconds += time.process_time() - begin
        return self.found[key]

    def similarities(self, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return zeros, since the reasons of proposals are not read."""
        return np.zeros((len(rows), len(history)))


def main() -> None:
    """Print a table for each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--epochs", type=int, default=20, help="of the next-item model; 0 for none")
    parser.add_argument("--index", type=Path, help="index of the training part, whose next-item model is used")
    parser.add_argument("--settings", nargs="*", default=["warm", "new-item"])
    parser.add_argument("--limit", type=int, default=2000, help="test users of each setting")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    dataset = Dataset.load(arguments.dataset)
    split = load_split(dataset)
    if arguments.index:
        next_item = Index.load(arguments.index, dataset).next_item
        model = next_item.model if next_item else None
        index = Index.build(dataset, histories=split.train, model=model, seed=arguments.seed)
    else:
        config = SASRecConfig(epochs=arguments.epochs)
        index = Index.build(dataset, config, split.train, seed=arguments.seed, progress=True)
    for setting in arguments.settings:
        show(index, sample_users(split.test[setting], arguments.limit, 0), f"{dataset.name}, {setting}")


def show(index: Index, cases: pl.DataFrame, title: str) -> None:
    """Print the table of a setting."""
    table = Table(title=f"{title}: {len(cases):,} test users, {len(index.items):,} items")
    for column in ("index", f"recall@{POOL}", "95%", "p", f"ndcg@{DEPTH}", "95%", "p", "cpu ms/user"):
        table.add_column(column)
    sources = index.sources
    stored = {name: StoredRankings(source) for name, source in sources.items()}
    values: dict[str, list[np.ndarray]] = {}
    for row, left_out in ROWS.items():
        index.sources = {name: source for name, source in stored.items() if name not in left_out}
        ranks = true_ranks(index, cases)
        values[row] = [hit_rate(ranks, POOL), ndcg(ranks, DEPTH)]
    index.sources = sources
    against = {"all sources": "without rules", "without next": "without next and rules"}
    for row, of_row in values.items():
        cells: list[str] = []
        for place, each in enumerate(of_row):
            other = values[against[row]][place] if row in against else each
            p = f"{paired_t_test(each, other):.2g}" if (each != other).any() else ""
            cells += [f"{each.mean():.4f}", "[{:.3f}, {:.3f}]".format(*bootstrap_interval(each)), p]
        seconds = sum(source.seconds for name, source in stored.items() if name not in ROWS[row])
        table.add_row(row, *cells, f"{1000 * seconds / len(cases):.1f}")
    Console(width=140).print(table)


def true_ranks(index: Index, cases: pl.DataFrame) -> np.ndarray:
    """Return the ranks of the targets among the proposals, infinite where not found."""
    ranks = []
    for history, target in cases.select(HISTORY, TARGET).iter_rows():
        pool = [each.item_id for each in index.propose(history, POOL)]
        ranks.append(pool.index(target) + 1 if target in pool else np.inf)
    return np.array(ranks)


if __name__ == "__main__":
    main()
