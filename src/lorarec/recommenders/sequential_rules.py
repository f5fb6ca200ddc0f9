"""Sequential rules: which item follows which one, and how soon."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.sparse import csr_matrix, diags

from lorarec.data import HISTORY, ITEM
from lorarec.errors import refuse_out_of_range
from lorarec.options import document_options, option
from lorarec.recommenders.baselines import ItemWeightRecommender, SimilarityConfig
from lorarec.recommenders.interactions import encode_lists
from lorarec.recommenders.training_data import TrainingData


@document_options
@dataclass(frozen=True)
class SequentialRulesConfig(SimilarityConfig):
    """Options of `SequentialRules`."""

    max_history: int = option(50, "Number of items of a history that are read, the latest.")
    max_distance: int = option(50, "Largest number of positions from an item to a later one in a training history.")
    shrinkage: float = option(10.0, "Number added to the total weight of an item, so that rare items score lower.")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("max_distance",), ("shrinkage",), ())


class SequentialRules(ItemWeightRecommender[SequentialRulesConfig]):
    """Score a candidate by how often, and how soon, it followed the items of the history in training.

    With w(h, i) the sum of 1 / d over all places of the training histories where item i stands d positions after item
    h, the score is the sum over the latest history items h of

        1 / p(h) * w(h, i) / sqrt((w(h, .) + s) (w(., i) + s))

    where p(h) is 1 for the last item of the history, 2 for the one before and so on, w(h, .) and w(., i) are the sums
    of w over the other item, and s is the shrinkage. The rules and their weights are those of SR (Ludewig and Jannach,
    2018, Evaluation of session-based recommendation algorithms), which reads the last item only; here all latest items
    vote, and popular items are discounted as in `ItemKNN`.
    """

    config_class = SequentialRulesConfig

    @property
    def about(self) -> str:
        """One line for reports."""
        return f"how often and how soon a candidate followed the last {self.config.max_history} items in training"

    def fit(self, data: TrainingData) -> Self:
        """Set the vector of an item to the discounted weights of the rules that lead to it."""
        self.items, self.item_rows = data.dataset.items[ITEM], data.item_rows
        rows, lengths = encode_lists(data.split.train[HISTORY], self.items)
        self.vectors = count_rules(rows, lengths, len(self.items), self.config)
        return self

    def _history_weights(self, lengths: np.ndarray) -> np.ndarray:
        return place_weights(np.repeat(np.cumsum(lengths), lengths) - np.arange(int(lengths.sum())))


def count_rules(rows: np.ndarray, lengths: np.ndarray, items: int, config: SequentialRulesConfig) -> csr_matrix:
    """Return the discounted weights of the rules from each item (columns) to each item (rows), (items, items).

    Args:
        rows: Rows of the items of all histories, one history after the other, each in time order.
        lengths: Length of each history.
        items: Number of items.
        config: Largest distance and shrinkage.
    """
    shape = items, items
    weights = csr_matrix(shape, dtype=np.float64)
    for distance, before, after in _pairs(rows, lengths, config.max_distance):
        weights += csr_matrix((np.full(len(before), 1 / distance), (after, before)), shape)
    leading, following = (_discount(weights.sum(axis), config.shrinkage) for axis in (0, 1))
    return (diags(following) @ weights @ diags(leading)).tocsr()


def place_weights(places: np.ndarray) -> np.ndarray:
    """Return the weights of history items from their places, which are 1 for the last item of a history."""
    return 1 / places


def _pairs(rows: np.ndarray, lengths: np.ndarray, max_distance: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield every distance with the earlier and the later items of all pairs at this distance in a history.

    Args:
        rows: Rows of the items of all histories, one history after the other.
        lengths: Length of each history.
        max_distance: Largest distance.
    """
    user = np.repeat(np.arange(len(lengths)), lengths)
    for distance in range(1, min(max_distance, int(lengths.max(initial=1)) - 1) + 1):
        same = user[:-distance] == user[distance:]
        yield distance, rows[:-distance][same], rows[distance:][same]


def _discount(totals: np.ndarray, shrinkage: float) -> np.ndarray:
    """Return 1 / sqrt(total + shrinkage) of each item; 0 where both are 0."""
    sums = np.asarray(totals).ravel() + shrinkage
    return np.divide(1, np.sqrt(sums), out=np.zeros_like(sums), where=sums > 0)
