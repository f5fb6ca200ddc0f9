"""AutoInt (Song et al. 2019): fields attend to each other, so that each layer crosses what the one before found."""

from typing import Any

import torch
from torch import nn

from lorarec.ctr.embeddings import EmbeddedBatch
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.network import CTRNetwork


class AutoInt(CTRNetwork):
    """Self-attention over fields with residuals (section 4.4).

    The final layers read what comes out beside the embeddings themselves, in the manner of AutoInt+; without them it is
    well below DeepFM.

    Args:
        heads: of each attention layer.
        depth: attention layers.
    """

    def __init__(self, encoder: FeatureEncoder, heads: int = 2, depth: int = 3, **options: Any) -> None:
        super().__init__(encoder, **options)
        self.crosses = nn.ModuleList(
            nn.MultiheadAttention(self.width, heads, batch_first=True, bias=False) for _ in range(depth)
        )
        self.residuals = nn.ModuleList(nn.Linear(self.width, self.width, bias=False) for _ in range(depth))
        self.deep = self.final(2 * self.embeddings.all_width)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        fields = embedded.all_fields
        for cross, residual in zip(self.crosses, self.residuals, strict=True):
            fields = torch.relu(cross(fields, fields, fields, need_weights=False)[0] + residual(fields))
        return self.deep(torch.cat([fields.flatten(1), embedded.all_fields.flatten(1)], 1))
