"""Rankers without a language model in every table: chance, popularity, co-occurrence and similar titles."""

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix
from sklearn.preprocessing import normalize

from lorarec.data import CANDIDATES, HISTORY, ITEM, Dataset, Split, title_vectors
from lorarec.recommenders.scorer import Scorer

RANDOM = "random"
INFORMED_BASELINES = POPULARITY, NEIGHBOURS, TITLE_SIMILARITY = ("popularity", "item-knn", "tf-idf")
_CASES_AT_ONCE = 1024  # sparse products of a batch stay below a few hundred MB


def baseline_scorers(dataset: Dataset, split: Split, seed: int = 0) -> dict[str, Scorer]:
    """The baselines by the names they have in tables."""
    return {
        RANDOM: RandomOrder(seed),
        POPULARITY: Popularity(dataset, split),
        NEIGHBOURS: ItemNeighbours(dataset, split),
        TITLE_SIMILARITY: TitleSimilarity(dataset),
    }


class RandomOrder:
    """Scores drawn uniformly: what chance gives."""

    about = "scores drawn at random"

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Draw scores for the candidates of every case; the next call goes on with the stream."""
        sizes = cases[CANDIDATES].list.len().to_numpy().astype(np.int64)
        return _per_case(self.rng.random(int(sizes.sum())), sizes)


class Popularity:
    """How often an item occurs in training; items that are new there have 0."""

    about = "number of interactions with the item in training"

    def __init__(self, dataset: Dataset, split: Split) -> None:
        self.items = dataset.items[ITEM]
        codes, _ = _coded(split.train[HISTORY], self.items)
        self.counts = np.bincount(codes, minlength=len(self.items)).astype(np.float64)

    def __call__(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case."""
        codes, sizes = _coded(cases[CANDIDATES], self.items)
        return _per_case(self.counts[codes], sizes)


class ItemNeighbours:
    """Sum of the cosines between who chose a candidate and who chose each of the latest history items, in training.

    Args:
        max_history: the latest items of a history that count.
    """

    def __init__(self, dataset: Dataset, split: Split, max_history: int = 10) -> None:
        self.items = dataset.items[ITEM]
        self.max_history = max_history
        codes, lengths = _coded(split.train[HISTORY], self.items)
        chosen = csr_matrix(
            (np.ones(len(codes)), (codes, np.repeat(np.arange(len(lengths)), lengths))),
            shape=(len(self.items), len(lengths)),
        )
        chosen.data[:] = 1
        self.users = normalize(chosen)
        self.about = f"cosine of the users who chose a candidate and those of the last {max_history} items"

    def __call__(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case."""
        return _to_history(cases, self.items, self.users, self.max_history)


class TitleSimilarity:
    """Inner product of a candidate's TF-IDF title vector with the sum of those of the latest history items.

    The vectors are scikit-learn's defaults (words of two and more characters, smooth idf, unit length), fitted on the
    titles of the whole catalogue: those of new items are known, interactions are not looked at.

    Args:
        max_history: the latest items of a history that count.
    """

    def __init__(self, dataset: Dataset, max_history: int = 10) -> None:
        self.items = dataset.items[ITEM]
        self.max_history = max_history
        self.words = title_vectors(list(dataset.titles.values()))
        self.about = f"similarity of TF-IDF title vectors to the last {max_history} titles of the history"

    def __call__(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case."""
        return _to_history(cases, self.items, self.words, self.max_history)


def _to_history(cases: pl.DataFrame, items: pl.Series, vectors: csr_matrix, max_history: int) -> list[np.ndarray]:
    """Inner products of each candidate's vector with the sum of those of the latest history items."""
    found: list[np.ndarray] = []
    for batch in cases.iter_slices(_CASES_AT_ONCE):
        history, lengths = _coded(batch[HISTORY].list.tail(max_history), items)
        owners = np.repeat(np.arange(len(batch)), lengths)
        profiles = csr_matrix((np.ones(len(history)), (owners, history)), (len(batch), len(items))) @ vectors
        codes, sizes = _coded(batch[CANDIDATES], items)
        products = profiles[np.repeat(np.arange(len(batch)), sizes)].multiply(vectors[codes])
        found += _per_case(np.asarray(products.sum(axis=1)).ravel(), sizes)
    return found


def _coded(lists: pl.Series, items: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Lists of item ids as row numbers of `items`, one list after the other, and the lengths of the lists."""
    codes = lists.explode().drop_nulls().cast(pl.Enum(items)).to_physical()
    return codes.to_numpy().astype(np.int64), lists.list.len().to_numpy().astype(np.int64)


def _per_case(flat: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    return np.split(flat, np.cumsum(sizes)[:-1])
