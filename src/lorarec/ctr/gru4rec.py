"""GRU4Rec (Hidasi et al. 2016) as a click model: a recurrent network reads the history in order."""

from typing import Any

import torch
from torch import nn

from lorarec.ctr.embeddings import EmbeddedBatch
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.network import CTRNetwork


class GRU4RecCTR(CTRNetwork):
    """The state after the latest item, beside user and target.

    Args:
        state: size of the recurrent state.
    """

    def __init__(self, encoder: FeatureEncoder, state: int = 64, **options: Any) -> None:
        super().__init__(encoder, **options)
        self.recurrent = nn.GRU(self.embeddings.behaviour_width, state, batch_first=True)
        self.deep = self.final(self.embeddings.flat_width + state)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        states = self.recurrent(embedded.behaviours)[0]
        # What stands after the latest item is padding, which its state never saw.
        return self.deep(torch.cat([embedded.flat, embedded.at_last(states)], 1))
