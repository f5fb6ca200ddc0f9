"""EASE: linear weights between items in closed form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.sparse import csr_matrix

from lorarec.data import HISTORY, ITEM
from lorarec.errors import refuse_out_of_range
from lorarec.options import document_options, option
from lorarec.recommenders.baselines import ItemWeightRecommender, SimilarityConfig
from lorarec.recommenders.interactions import encode_lists, interaction_matrix
from lorarec.recommenders.training_data import TrainingData


@document_options
@dataclass(frozen=True)
class EASEConfig(SimilarityConfig):
    """Options of `EASE`."""

    max_history: int = option(50, "Number of items of a history that are read, the latest.")
    penalty: float = option(5.0, "L2 penalty, as a multiple of the mean number of interactions of an item.")
    neighbours: int = option(200, "Number of weights that are kept for each item, the largest ones.")
    max_items: int = option(
        20_000,
        "Maximum number of items with weights, the most popular ones. The memory of a fit grows with its square (5 GB "
        "at 20,000), its time with the cube.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("neighbours", "max_items"), (), ("penalty",))


class EASE(ItemWeightRecommender[EASEConfig]):
    """Score a candidate by the sum of learned weights between it and the latest history items (Steck, WWW 2019).

    The weights B (items, items) minimise the squared error of X - XB plus a penalty times their squared norm, with
    zeros on the diagonal, where X are the binary interactions (users, items). With P the inverse of X'X plus the
    penalty on the diagonal, B[h, i] = -P[h, i] / P[i, i] (eq. 8). Unlike in the paper, only the largest weights of each
    item are kept, and the items beyond the most popular ones have none.
    """

    config_class = EASEConfig

    @property
    def about(self) -> str:
        """One line for reports."""
        return f"linear weights between a candidate and the last {self.config.max_history} items"

    def fit(self, data: TrainingData) -> Self:
        """Compute the weights in closed form."""
        self.items, self.item_rows = data.dataset.items[ITEM], data.item_rows
        rows, lengths = encode_lists(data.split.train[HISTORY], self.items)
        interactions = interaction_matrix(rows, lengths, len(self.items)).tocsc()
        counts = interactions.getnnz(0)
        popular = np.sort(np.argsort(-counts, kind="stable")[: min(self.config.max_items, int((counts > 0).sum()))])
        weights = _item_weights(interactions[:, popular], self.config.penalty)
        kept = min(self.config.neighbours, len(popular))
        columns = np.argpartition(-np.abs(weights), kept - 1, axis=1)[:, :kept]
        places = np.repeat(popular, kept), popular[columns.ravel()]
        values = np.take_along_axis(weights, columns, axis=1).ravel()
        self.vectors = csr_matrix((values, places), (len(self.items), len(self.items)))
        return self

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the weights as a sparse matrix in CSR format; see `Recommender.tensors`."""
        parts = {"data": self.vectors.data, "indices": self.vectors.indices, "indptr": self.vectors.indptr}
        return {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in parts.items()}

    def restore(self, data: TrainingData, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Set the weights; see `Recommender.restore`."""
        self.items, self.item_rows = data.dataset.items[ITEM], data.item_rows
        parts = tuple(tensors[name].numpy() for name in ("data", "indices", "indptr"))
        self.vectors = csr_matrix(parts, (len(self.items), len(self.items)))
        return self


def _item_weights(interactions: csr_matrix, penalty: float) -> np.ndarray:
    """Return the weight of every item (columns) in the score of every item (rows), with zeros on the diagonal.

    Args:
        interactions: Binary sparse matrix (users, items) without empty columns.
        penalty: L2 penalty, as a multiple of the mean number of interactions of an item.
    """
    gram = torch.from_numpy((interactions.T @ interactions).toarray().astype(np.float32))
    gram.diagonal().add_(penalty * gram.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    inverse /= -inverse.diagonal()[:, None].clone()
    return inverse.fill_diagonal_(0).numpy()
