"""Inner products against a loop, and items without a vector."""

import numpy as np
import polars as pl
import pytest
import torch

from lorarec.recommenders.dot_product import UNKNOWN_ITEM_SCORE, DotProductScorer


@pytest.mark.parametrize("count", [1, 3])
def test_scores_equal_a_loop_and_unknown_items_are_last(count: int) -> None:
    """One case and several are encoded in different ways."""
    generator = torch.Generator().manual_seed(0)
    vectors, queries = torch.randn(5, 4, generator=generator), torch.randn(count, 4, generator=generator)
    biases = torch.randn(5, generator=generator)
    index = {"a": 3, "b": 0, "c": 4, "d": 1, "e": 2}
    candidates = [["e", "?", "a"], ["b"], ["!", "d", "c", "a", "?"]][:count]
    users = [str(number) for number in range(count)]
    cases = pl.DataFrame({"user_id": users, "history": [["a"]] * count, "candidates": candidates})
    found = DotProductScorer(index, vectors, lambda _: queries, biases=biases).score(cases)
    for scores, query, items in zip(found, queries, candidates, strict=True):
        assert scores.dtype == np.float32
        wanted = [
            float(vectors[index[item]] @ query + biases[index[item]]) if item in index else UNKNOWN_ITEM_SCORE
            for item in items
        ]
        np.testing.assert_allclose(scores, wanted, rtol=1e-5)
