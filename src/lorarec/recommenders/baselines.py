"""Baselines of every table: random order, popularity, item-based nearest neighbours and TF-IDF similarity of titles."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_matrix

from lorarec.data import CANDIDATES, HISTORY, ITEM, title_vectors
from lorarec.errors import refuse_out_of_range
from lorarec.options import document_options, option
from lorarec.recommenders.interactions import encode_lists, interaction_matrix
from lorarec.recommenders.recommender import Recommender
from lorarec.recommenders.recommender_config import RecommenderConfig
from lorarec.recommenders.training_data import TrainingData

Config = TypeVar("Config")
_CASES_AT_ONCE = 1024  # sparse products of a batch stay below a few hundred MB


class _RefittedBaseline(Recommender[Config]):
    """A recommender whose `fit` takes seconds and draws nothing, so that `restore` fits it again exactly."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return nothing, since nothing has to be stored; see `Recommender.tensors`."""
        return {}

    def restore(self, data: TrainingData, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Fit again; see `Recommender.restore`."""
        return self.fit(data)


class RandomOrder(Recommender[RecommenderConfig]):
    """Score candidates by uniform random numbers: the performance of chance.

    It cannot be saved, since its scores depend on how many were drawn before.
    """

    config_class = RecommenderConfig
    about = "scores drawn at random"

    def fit(self, data: TrainingData) -> Self:
        """Seed the random numbers."""
        self.generator = np.random.default_rng(data.seed)
        return self

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Draw scores for the candidates of every case; each call continues the stream of random numbers."""
        sizes = cases[CANDIDATES].list.len().to_numpy().astype(np.int64)
        return _per_case(self.generator.random(int(sizes.sum())), sizes)


class CountRecommender(_RefittedBaseline[Config]):
    """Score a candidate by a count of its training interactions, which does not depend on the user.

    Attributes:
        items: Item ids of the catalogue.
        item_rows: Row of each item in the catalogue.
        counts: Count of each item (items,), which `fit` sets, as it does the others.
    """

    uses_seed = False
    items: pl.Series
    item_rows: Mapping[str, int]
    counts: np.ndarray

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case; see `Scorer.score`."""
        rows, sizes = encode_lists(cases[CANDIDATES], self.items, self.item_rows)
        return _per_case(self.counts[rows], sizes)


class Popularity(CountRecommender[RecommenderConfig]):
    """Score a candidate by its number of training interactions; items without any have score 0."""

    config_class = RecommenderConfig
    about = "number of interactions with the item in training"

    def fit(self, data: TrainingData) -> Self:
        """Count the interactions with every item."""
        self.items, self.item_rows = data.dataset.items[ITEM], data.item_rows
        rows, _ = encode_lists(data.split.train[HISTORY], self.items)
        self.counts = np.bincount(rows, minlength=len(self.items)).astype(np.float64)
        return self


@document_options
@dataclass(frozen=True)
class SimilarityConfig(RecommenderConfig):
    """Options of `ItemKNN` and `TfIdf`."""

    max_history: int = option(10, "Number of items of a history that are read, the latest.")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("max_history",), (), ())


SimilarityOptions = TypeVar("SimilarityOptions", bound=SimilarityConfig)


class SimilarityRecommender(_RefittedBaseline[SimilarityOptions]):
    """Score a candidate by the inner product of its vector with the profile of the latest history items.

    Attributes:
        items: Item ids of the catalogue.
        item_rows: Row of each item in the catalogue.
        vectors: Sparse vectors (items, features), which `fit` sets, as it does the others.
    """

    uses_seed = False
    items: pl.Series
    item_rows: Mapping[str, int]
    vectors: csr_matrix

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case; see `Scorer.score`."""
        scores: list[np.ndarray] = []
        for batch in cases.iter_slices(_CASES_AT_ONCE):
            history, lengths = encode_lists(
                batch[HISTORY].list.tail(self.config.max_history), self.items, self.item_rows
            )
            case = np.repeat(np.arange(len(batch)), lengths)
            weights = self._history_weights(lengths)
            profiles = self._profiles(csr_matrix((weights, (case, history)), (len(batch), len(self.items))))
            candidates, sizes = encode_lists(batch[CANDIDATES], self.items, self.item_rows)
            scores += _per_case(
                self._inner_products(profiles, np.repeat(np.arange(len(batch)), sizes), candidates), sizes
            )
        return scores

    def _history_weights(self, lengths: np.ndarray) -> np.ndarray:
        """Return the weight of each history item, one history after the other: 1 for all.

        Args:
            lengths: Number of history items of each case (cases,).
        """
        return np.ones(int(lengths.sum()))

    def _profiles(self, histories: csr_matrix) -> csr_matrix:
        """Return the profile of each case (cases, features): the weighted sum of the vectors of its history items.

        Args:
            histories: Weights of the history items (cases, items).
        """
        return histories @ self.vectors

    def _inner_products(self, profiles: csr_matrix, case: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Return the inner products (n,) of profiles and candidates.

        With most of the catalogue as candidates, one product of matrices is many times faster than pairs of rows.

        Args:
            profiles: Sparse profiles (cases, features).
            case: Case of each candidate (n,).
            candidates: Rows of the candidates (n,).
        """
        if 4 * len(candidates) < profiles.shape[0] * len(self.items):
            products = profiles[case].multiply(self.vectors[candidates])
            return np.asarray(products.sum(axis=1)).ravel()
        products = profiles @ self.vectors.T
        products.sort_indices()  # entries are then found by binary search
        return np.asarray(products[case, candidates]).ravel()


class ItemWeightRecommender(SimilarityRecommender[SimilarityOptions]):
    """Score a candidate by the sum of its weights for the latest history items.

    Attributes:
        vectors: Weight of each history item (columns) in the score of each item (rows), which `fit` sets.
    """

    def _profiles(self, histories: csr_matrix) -> csr_matrix:
        return histories


class ItemKNN(SimilarityRecommender[SimilarityConfig]):
    """Item-based nearest neighbours: sum up the cosines between a candidate's users and those of each history item.

    With U_i the training users who chose item i, the score is the sum over the latest history items h of
    |U_h & U_i| / sqrt(|U_h| |U_i|).
    """

    config_class = SimilarityConfig

    @property
    def about(self) -> str:
        """One line for reports."""
        return f"cosine of the users who chose a candidate and those of the last {self.config.max_history} items"

    def fit(self, data: TrainingData) -> Self:
        """Set the vector of an item to its users, scaled to length 1."""
        from sklearn.preprocessing import normalize  # takes a second to load

        self.items, self.item_rows = data.dataset.items[ITEM], data.item_rows
        rows, lengths = encode_lists(data.split.train[HISTORY], self.items)
        self.vectors = normalize(interaction_matrix(rows, lengths, len(self.items)).T.tocsr().astype(np.float64))
        return self


class TfIdf(SimilarityRecommender[SimilarityConfig]):
    """Score a candidate by the inner product of its TF-IDF vector with the sum of those of the history.

    The vectors are scikit-learn's with its defaults (words of two and more characters, smooth idf, unit length), fitted
    to the titles of the whole catalogue, so new items have a vector as well. Interactions are not used.
    """

    config_class = SimilarityConfig
    scores_new_items = True

    @property
    def about(self) -> str:
        """One line for reports."""
        return f"similarity of TF-IDF title vectors to the last {self.config.max_history} titles of the history"

    def fit(self, data: TrainingData) -> Self:
        """Set the vector of an item to the TF-IDF weights of the words of its title."""
        self.items, self.item_rows = data.dataset.items[ITEM], data.item_rows
        self.vectors = title_vectors(list(data.dataset.titles.values()))
        return self


#: Baselines that every table contains, by row name.
BASELINES: dict[str, type[Recommender[Any]]] = {
    "random": RandomOrder,
    "popularity": Popularity,
    "item-knn": ItemKNN,
    "tf-idf": TfIdf,
}
#: Baselines that use data; other rows are compared with the best of them.
INFORMED_BASELINES = tuple(name for name in BASELINES if name != "random")


def fit_baselines(data: TrainingData) -> dict[str, Recommender[Any]]:
    """Fit every baseline with its default options; the keys are their names in tables."""
    return {name: baseline().fit(data) for name, baseline in BASELINES.items()}


def _per_case(flat: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    return np.split(flat, np.cumsum(sizes))[:-1]  # also right for no cases, of which a split at [] would make one
