"""Co-occurrence of candidates and histories in the choices of other users, as words for the prompt."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Self

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from lorarec.data.columns import HISTORY, USER
from lorarec.data.dataset import Dataset
from lorarec.data.similar_items import SimilarItems
from lorarec.data.splitting import histories_of

#: The words, by the share of the catalogue that was chosen most often together with the history.
LEVELS = {0.001: "always", 0.003: "mostly", 0.01: "usually", 0.03: "frequently", 0.1: "often", 0.3: "sometimes"}
NEW, SILENT = "new", ""
#: Maximum number of users of a history's items who are counted, so that popular items cost no more than others.
MAX_USERS = 4096
#: Relative difference of counts that is rounding.
_ROUNDING = 1e-9


class Cooccurrence:
    """Describe by one word how often other users chose a candidate together with the items of a history.

    For every item of the catalogue, the pairs (user, item of the history) are counted whose user chose the item as
    well. The word gives the position of the candidate in the order of these counts, as a share of the catalogue. So it
    means the same among a thousand items as among a million, and a model that learns to read it in some domains can
    read it in others. Beyond the first 30% there is no word. Items without any interaction are called new and get the
    counts of the known items with the most similar titles: the mean over five of them, weighted by the cosine of TF-IDF
    vectors.

    Args:
        train: The columns user_id and history (item ids), one row per user: the training part of a split.
        titles: The title of each item by its id, also of new items.

    Attributes:
        model: None, since no model gives these words; see `Evidence`.

    Examples:
        >>> import polars as pl
        >>> from lorarec.data import Cooccurrence
        >>> train = pl.DataFrame({"user_id": ["1", "2", "3"], "history": [["a", "b"], ["a", "b"], ["c", "d"]]})
        >>> titles = {"a": "Toy Story", "b": "Antz", "c": "Heat", "d": "Ronin", "e": "Toy Story 2"}
        >>> Cooccurrence(train, titles).hints(["a"], ["b", "c", "e"], user="1")
        ['sometimes', '', 'new']
    """

    model = None

    def __init__(self, train: pl.DataFrame, titles: Mapping[str, str]) -> None:
        histories = train[HISTORY]
        self._user = {user: row for row, user in enumerate(train[USER].to_list())}
        flat = histories.explode().drop_nulls()
        catalogue = flat.unique(maintain_order=True)
        self._row = {item: row for row, item in enumerate(catalogue.to_list())}
        items = flat.cast(pl.Enum(catalogue)).to_physical().to_numpy() if len(flat) else np.empty(0, np.int64)
        users = np.repeat(np.arange(len(histories)), histories.list.len().fill_null(0).to_numpy())
        self._items_of = csr_matrix((np.ones(len(users), np.int32), (users, items)), (len(histories), len(catalogue)))
        self._items_of.sum_duplicates()
        self._users_of = self._items_of.tocsc()
        self._similar = SimilarItems(titles, list(self._row))

    def hints(
        self,
        history: Sequence[str],
        candidates: Sequence[str],
        user: str | None = None,
        hidden: Sequence[bool] | None = None,
        max_history: int | None = None,
    ) -> list[str]:
        """Return a hint about each candidate, which is empty for those that were rarely chosen with the history.

        Args:
            history: Item ids, oldest first.
            candidates: Item ids.
            user: The user of the history, whose own choices are not counted, since in training the target is one.
            hidden: Whether each candidate is called new although it is known, so that there are new items in training.
            max_history: Number of latest items of the history that are read; None for all.

        Returns:
            A word of `LEVELS` or empty text for a known item; "new, " and such a word, or "new", for a new item.
        """
        own = -1 if user is None else self._user.get(user, -1)
        counts = self._counts(history if max_history is None else history[-max_history:], own)
        ordered = np.sort(counts[counts > 0])
        words = []
        for place, item in enumerate(candidates):
            row = self._row.get(item)
            if row is None or (hidden is not None and hidden[place]) or not self._chosen_by_others(row, own):
                similar, weights = self._similar.find(item)
                word = _word(float(counts[similar] @ weights), ordered, len(counts))
                words.append(new_item_word(word))
            else:
                words.append(_word(counts[row], ordered, len(counts)))
        return words

    def with_titles(self, titles: Mapping[str, str]) -> Self:
        """Return the words for a catalogue with further items or other titles; see `CandidateWords.with_titles`."""
        other = copy(self)
        other._similar = SimilarItems(titles, list(self._row))
        return other

    def _counts(self, history: Sequence[str], own: int) -> np.ndarray:
        """Return the counts (items,) of pairs (user, item of the history) whose user chose the item.

        They are 0 for the items of the history.
        """
        rows = [self._row[item] for item in dict.fromkeys(history) if item in self._row]
        users = self._users_of[:, rows].indices
        users = users[users != own]
        users = users[subsample_users(len(users))]
        counts = np.bincount(self._items_of[users].indices, minlength=self._items_of.shape[1])
        counts[rows] = 0
        return counts

    def _chosen_by_others(self, row: int, own: int) -> bool:
        users = self._users_of.indices[self._users_of.indptr[row] : self._users_of.indptr[row + 1]]
        return len(users) > 1 or (len(users) == 1 and users[0] != own)


def dataset_cooccurrence(dataset: Dataset) -> Cooccurrence:
    """Return the co-occurrence counts of all interactions of a dataset."""
    return Cooccurrence(histories_of(dataset.interactions), dataset.titles)


def subsample_users(count: int) -> slice:
    """Return the slice that selects at most `MAX_USERS` of `count` users, evenly spaced."""
    return slice(None, None, -(-count // MAX_USERS) or 1)


def rank_word(rank: int, items: int) -> str:
    """Return the word of the rank of an item in the catalogue, which is empty beyond the first 30%.

    Args:
        rank: Rank of the item; of equal items, the last one's.
        items: Number of items of the catalogue.
    """
    return next((word for share, word in LEVELS.items() if rank <= share * items), SILENT)


def new_item_word(word: str) -> str:
    """Return the hint about a new item, given the word that it borrows, which may be empty."""
    return f"{NEW}, {word}" if word else NEW


def _word(count: float, ordered: np.ndarray, items: int) -> str:
    """Return the word of a count, given the positive counts of the catalogue in rising order."""
    if count <= 0:
        return SILENT
    # The mean of equal counts may be above them by rounding, which would place it before all of them.
    return rank_word(len(ordered) - int(np.searchsorted(ordered, count * (1 - _ROUNDING))), items)
