"""DCNv2 (Wang et al. 2021): explicit feature crosses of growing degree beside a deep network."""

from typing import Any

import torch
from torch import nn

from lorarec.ctr.embeddings import EmbeddedBatch
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.network import CTRNetwork


class DCNv2(CTRNetwork):
    """x_{l+1} = x_0 * (W x_l + b) + x_l (equation 1) in parallel with final layers; both make the representation.

    Args:
        depth: cross layers; the highest degree of a cross is one more.
    """

    def __init__(self, encoder: FeatureEncoder, depth: int = 3, **options: Any) -> None:
        super().__init__(encoder, **options)
        width = self.embeddings.all_width
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.deep = self.final(width)
        self.join = nn.Sequential(nn.Linear(width + self.layers[-1], self.layers[-1]), nn.ReLU())

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        start = embedded.all_fields.flatten(1)
        crossed = start
        for cross in self.crosses:
            crossed = start * cross(crossed) + crossed
        return self.join(torch.cat([crossed, self.deep(start)], 1))
