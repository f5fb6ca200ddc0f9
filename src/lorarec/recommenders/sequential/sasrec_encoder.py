"""SASRec (Kang and McAuley, ICDM 2018): causal self-attention over the history."""

import torch
from torch import nn

from lorarec.recommenders.sequential.sequence_encoder import SequenceEncoder


class SASRecEncoder(SequenceEncoder):
    """Transformer layers with one head, as in the paper; layer norms come first, which makes training more stable."""

    def __init__(self, hidden_size: int, max_history: int, num_layers: int, dropout: float) -> None:
        super().__init__(hidden_size, max_history, num_layers, dropout)
        self.places = nn.Embedding(max_history, hidden_size)
        nn.init.normal_(self.places.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(hidden_size, 1, 2 * hidden_size, dropout, batch_first=True, norm_first=True)
        norm = nn.LayerNorm(hidden_size)
        self.attention = nn.TransformerEncoder(layer, num_layers, norm, enable_nested_tensor=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """See `SequenceEncoder.forward`."""
        length = states.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        return self.attention(self.dropout(states + self.places.weight[:length]), mask=causal)
