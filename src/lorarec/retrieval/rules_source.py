"""The source of items that followed the items of the history, by sequential rules."""

from typing import ClassVar, Self

import numpy as np
from scipy.sparse import csr_matrix

from lorarec.recommenders import SequentialRulesConfig, count_rules, place_weights
from lorarec.retrieval.nearest import best
from lorarec.retrieval.source import concatenate_ranges, latest_items

#: Number of rules of each history item that are kept, the strongest.
MAX_RULES = 500


class RulesSource:
    """Retrieve items by how often, and how soon, they followed the latest items of the history.

    The score is that of the recommender `SequentialRules` with its default options. Unlike there, each history item
    counts once, and an item has at most `MAX_RULES` rules, the strongest.

    Args:
        rules: Weights of the rules from each item (rows) to each item (columns), (items, items).
    """

    max_history: ClassVar[int] = SequentialRulesConfig().max_history

    def __init__(self, rules: csr_matrix) -> None:
        self.rules = rules

    @classmethod
    def count(cls, rows: np.ndarray, lengths: np.ndarray, items: int) -> Self:
        """Return the source that counts the rules of histories.

        Args:
            rows: Rows of the items of all histories, one history after the other, each in time order.
            lengths: Length of each history.
            items: Number of items.
        """
        rules = count_rules(rows, lengths, items, SequentialRulesConfig())
        return cls(_strongest(rules.T.tocsr().astype(np.float32), MAX_RULES))

    def find(self, history: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """See `CandidateSource.find`."""
        latest = latest_items(history, self.max_history)
        begin, end = self.rules.indptr[latest], self.rules.indptr[latest + 1]
        places = concatenate_ranges(begin, end)
        weights = np.repeat(_place_weights(latest), end - begin)
        scores = np.bincount(self.rules.indices[places], self.rules.data[places] * weights, minlength=len(blocked))
        rows = np.flatnonzero((scores > 0) & ~blocked)
        return rows[best(scores[rows], count)]

    def similarities(self, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the weights of the rules, times those of the places in the history; see `CandidateSource`."""
        return self.rules[history][:, rows].T.toarray() * _place_weights(history)

    def renumbered(self, place: np.ndarray, items: int) -> Self:
        """Return the source of a catalogue with further items.

        Args:
            place: Row of each item in that catalogue (items,).
            items: Number of items of that catalogue.
        """
        rules = self.rules.tocoo()
        return type(self)(csr_matrix((rules.data, (place[rules.row], place[rules.col])), (items, items)))


def _place_weights(latest: np.ndarray) -> np.ndarray:
    """Return the weights of different history items, the latest first."""
    return place_weights(np.arange(1, len(latest) + 1))


def _strongest(rules: csr_matrix, count: int) -> csr_matrix:
    """Return the matrix with at most the `count` largest entries of each row, of equal ones the first."""
    begin, length = rules.indptr[:-1], np.diff(rules.indptr)
    keep = np.ones(rules.nnz, bool)
    for row in np.flatnonzero(length > count):
        entries = slice(begin[row], begin[row] + length[row])
        keep[entries] = False
        keep[begin[row] + best(rules.data[entries], count)] = True
    indptr = np.append(0, np.cumsum(np.minimum(length, count)))
    return csr_matrix((rules.data[keep], rules.indices[keep], indptr), rules.shape)
