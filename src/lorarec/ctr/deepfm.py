"""DeepFM (Guo et al. 2017): a factorisation machine and a deep network on the same embeddings."""

import torch
from torch import nn

from lorarec.ctr.embeddings import EmbeddedBatch
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.network import CTRNetwork, NetworkConfig


class DeepFM(CTRNetwork[NetworkConfig]):
    """Add up first-order weights, the inner products of all pairs (equation 2), and the output of a deep network.

    First-order weights are computed from the embeddings by one linear map, not from tables of their own.
    """

    def __init__(self, encoder: FeatureEncoder, config: NetworkConfig) -> None:
        super().__init__(encoder, config)
        size = self.embeddings.all_size
        self.first_order = nn.Linear(size, 1, bias=False)
        self.deep = self.final_layers(size)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """See `CTRNetwork.hidden`."""
        return self.deep(embedded.all_fields.flatten(1))

    def logits(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """See `CTRNetwork.logits`."""
        fields = embedded.all_fields
        pairs = (fields.sum(1).square() - fields.square().sum(1)).sum(1) / 2
        return super().logits(embedded) + pairs + self.first_order(fields.flatten(1))[:, 0]
