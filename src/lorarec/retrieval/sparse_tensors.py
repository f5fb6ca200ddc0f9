"""Sparse matrices as tensors for safetensors files."""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.sparse import csr_matrix


def sparse_tensors(name: str, matrix: csr_matrix) -> dict[str, torch.Tensor]:
    """Return the tensors of a sparse matrix: `NAME.data`, `NAME.indices`, `NAME.indptr` and `NAME.width`."""
    parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
    parts |= {"width": np.array([matrix.shape[1]])}
    return {f"{name}.{part}": torch.from_numpy(array) for part, array in parts.items()}


def sparse_matrix(name: str, tensors: Mapping[str, torch.Tensor]) -> csr_matrix:
    """Return the sparse matrix that `sparse_tensors` was given; its values are ones if there are none."""
    parts = {part: tensor.numpy() for part, tensor in with_prefix(f"{name}.", tensors).items()}
    data = parts.get("data", np.ones(len(parts["indices"]), np.float32))
    return csr_matrix((data, parts["indices"], parts["indptr"]), (len(parts["indptr"]) - 1, int(parts["width"][0])))


def with_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
