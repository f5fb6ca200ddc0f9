"""SASRec (Kang and McAuley 2018) as a click model: causal self-attention over the history."""

from typing import Any

import torch
from torch import nn

from lorarec.ctr.embeddings import EmbeddedBatch
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.network import CTRNetwork


class SASRecCTR(CTRNetwork):
    """The output at the latest item, beside user and target. Places are counted back from the latest item.

    Args:
        state: width of the attention layers.
        heads: of each.
        depth: attention layers.
        longest: places that have an embedding of their own.
    """

    def __init__(
        self,
        encoder: FeatureEncoder,
        state: int = 64,
        heads: int = 2,
        depth: int = 2,
        longest: int = 60,
        **options: Any,
    ) -> None:
        super().__init__(encoder, **options)
        self.project = nn.Linear(self.embeddings.behaviour_width, state)
        self.places = nn.Embedding(longest, state)
        nn.init.normal_(self.places.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(state, heads, 2 * state, self.dropout, batch_first=True, norm_first=True)
        self.attention = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.deep = self.final(self.embeddings.flat_width + state)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        behaviours = embedded.behaviours
        length = behaviours.shape[1]
        back = (embedded.last[:, None] - torch.arange(length)).clamp(0, self.places.num_embeddings - 1)
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        states = self.attention(self.project(behaviours) + self.places(back), mask=causal)
        return self.deep(torch.cat([embedded.flat, embedded.at_last(states)], 1))
