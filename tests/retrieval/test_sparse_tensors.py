"""Sparse matrices as tensors and back."""

import numpy as np
from scipy.sparse import random as random_matrix

from lorarec.retrieval.sparse_tensors import sparse_matrix, sparse_tensors


def test_round_trip() -> None:
    matrix = random_matrix(7, 11, 0.2, format="csr", dtype=np.float32, random_state=0)
    tensors = {**sparse_tensors("words", matrix), **sparse_tensors("words2", matrix * 2)}
    found = sparse_matrix("words", tensors)
    assert found.shape == matrix.shape
    np.testing.assert_array_equal(found.toarray(), matrix.toarray())
    del tensors["words.data"]
    np.testing.assert_array_equal(sparse_matrix("words", tensors).toarray(), matrix.toarray() != 0)
