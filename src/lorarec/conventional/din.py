"""DIN (Zhou et al. 2018): the history weighed by its relevance to the target."""

from typing import Any

import torch
from torch import nn

from lorarec.conventional.base import Recommender, dense
from lorarec.conventional.embeddings import Embedded
from lorarec.conventional.fields import Encoder


class Interest(nn.Module):
    """Sum of the behaviours, each weighed by a small network on it and the target (section 4.3).

    Weights are not normalised, so that many relevant behaviours count for more than one.

    Args:
        target: width of the target's embedding.
        behaviour: width of a behaviour's: the target's and that of its rating.
    """

    def __init__(self, target: int, behaviour: int) -> None:
        super().__init__()
        self.unit = nn.Sequential(dense([behaviour + 3 * target, 36]), nn.Linear(36, 1))

    def forward(
        self, target: torch.Tensor, items: torch.Tensor, behaviours: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """(events, behaviour) from (events, target), (events, T, target), (events, T, behaviour), (events, T)."""
        wanted = target[:, None].expand_as(items)
        weights = self.unit(torch.cat([behaviours, wanted, wanted - items, wanted * items], -1))[..., 0]
        return ((weights * mask)[:, None] @ behaviours)[:, 0]


class DIN(Recommender):
    """The interest that the target wakes, beside user and target."""

    def __init__(self, encoder: Encoder, **options: Any) -> None:
        super().__init__(encoder, **options)
        widths = self.embeddings.target_width, self.embeddings.behaviour_width
        self.interest = Interest(*widths)
        self.deep = self.final(self.embeddings.flat_width + widths[1])

    def hidden(self, embedded: Embedded) -> torch.Tensor:
        interest = self.interest(embedded.target, embedded.history, embedded.behaviours, embedded.mask)
        return self.deep(torch.cat([embedded.flat, interest], 1))
