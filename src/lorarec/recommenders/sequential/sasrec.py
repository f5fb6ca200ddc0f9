"""SASRec (Kang and McAuley, ICDM 2018): causal self-attention over the history."""

import torch
from torch import nn

from lorarec.recommenders.sequential.sequence_encoder import SequenceEncoder


class SASRec(SequenceEncoder):
    """Attention layers with one head, as in the paper; layer norms come first, which trains more steadily."""

    def __init__(self, width: int, longest: int, depth: int, dropout: float) -> None:
        super().__init__(width, longest, depth, dropout)
        self.places = nn.Embedding(longest, width)
        nn.init.normal_(self.places.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(width, 1, 2 * width, dropout, batch_first=True, norm_first=True)
        self.attention = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        length = states.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        return self.attention(self.dropout(states + self.places.weight[:length]), mask=causal)
