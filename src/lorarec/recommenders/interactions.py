"""Lists of item ids as numbers and as a sparse matrix."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix


def encode_lists(
    lists: pl.Series, items: pl.Series, index: Mapping[str, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return lists of item ids as rows of the item table.

    Args:
        lists: Lists of item ids (n,); all of them are in `items`.
        items: Item ids in the order of the item table.
        index: Row of each item. With it, one list, or lists that are shorter than the table, are encoded without
            reading the table, which takes most of a second for a million items.

    Returns:
        The rows of all lists, one list after the other, and the lengths of the lists (n,), both int64.
    """
    if index is not None and len(lists) == 1:  # of a single request, for which the calls of polars would cost more
        only = lists.to_list()[0] or []
        return np.array([index[item] for item in only], np.int64), np.array([len(only)], np.int64)
    flat = lists.explode().drop_nulls()
    lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
    if index is not None and len(flat) < len(items):
        return np.array([index[item] for item in flat.to_list()], np.int64), lengths
    return flat.cast(pl.Enum(items)).to_physical().to_numpy().astype(np.int64), lengths


def known_items(lists: pl.Series, index: Mapping[str, int]) -> list[np.ndarray]:
    """Return lists of item ids as their numbers in `index`; unknown items are left out."""
    return [np.array([index[item] for item in items if item in index], np.int64) for items in lists.to_list()]


def interaction_matrix(rows: np.ndarray, lengths: np.ndarray, items: int) -> csr_matrix:
    """Return the binary matrix (users, items) of the items that each user chose, float32.

    Args:
        rows: Rows of the items of all histories, one history after the other.
        lengths: Length of the history of each user (users,).
        items: Number of items.
    """
    ends = np.append(0, np.cumsum(lengths))
    matrix = csr_matrix((np.ones(len(rows), np.float32), rows.astype(np.int32), ends), (len(lengths), items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix
