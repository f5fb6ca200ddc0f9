"""DeepFM (Guo et al. 2017): a factorisation machine and a deep network on the same embeddings."""

from typing import Any

import torch
from torch import nn

from lorarec.ctr.embeddings import EmbeddedBatch
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.network import CTRNetwork


class DeepFM(CTRNetwork):
    """Sum of first-order weights, of all pairs' inner products (equation 2), and of a deep network's output.

    First-order weights are read from the embeddings by one linear map instead of tables of their own.
    """

    def __init__(self, encoder: FeatureEncoder, **options: Any) -> None:
        super().__init__(encoder, **options)
        width = self.embeddings.all_width
        self.first_order = nn.Linear(width, 1, bias=False)
        self.deep = self.final(width)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        return self.deep(embedded.all_fields.flatten(1))

    def logits(self, embedded: EmbeddedBatch) -> torch.Tensor:
        fields = embedded.all_fields
        pairs = (fields.sum(1).square() - fields.square().sum(1)).sum(1) / 2
        return super().logits(embedded) + pairs + self.first_order(fields.flatten(1))[:, 0]
