"""Lists of item ids as rows of the item table, with and without an index of the rows."""

import numpy as np
import polars as pl
import pytest

from lorarec.recommenders import encode_lists

ITEMS = ["c", "a", "d", "b"]


@pytest.mark.parametrize(
    "lists",
    [
        [["a", "b"], [], ["c"]],
        [["a"], None],
        [["d", "b"]],
        [None],
        [],
        [["a", "b", "c", "d"], ["d", "d", "a"]],
        5 * [["b"], None, []],
    ],
    ids=str,
)
def test_rows_are_those_of_a_loop(lists: list[list[str] | None]) -> None:
    series = pl.Series(lists, dtype=pl.List(pl.String))
    index = {item: row for row, item in enumerate(ITEMS)}
    expected = [ITEMS.index(item) for items in lists for item in items or []]
    for known_rows in (None, index):
        rows, lengths = encode_lists(series, pl.Series(ITEMS), known_rows)
        assert rows.tolist() == expected
        assert lengths.tolist() == [len(items or []) for items in lists]
        assert rows.dtype == lengths.dtype == np.int64
