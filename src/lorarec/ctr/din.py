"""DIN (Zhou et al. 2018): the history weighed by its relevance to the target."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from lorarec.ctr.embeddings import EmbeddedBatch
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.network import CTRNetwork


class Interest(nn.Module):
    """Sum of the behaviours, each weighed by a small network on it and the target (section 4.3).

    Weights are not normalised, so that many relevant behaviours count for more than one.

    Args:
        target: width of the target's embedding.
        behaviour: width of a behaviour's: the target's and that of its rating.
    """

    def __init__(self, target: int, behaviour: int) -> None:
        super().__init__()
        self.parts = behaviour, target, target, target
        self.first = nn.Linear(sum(self.parts), 36)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(36, 1))

    def forward(self, target: torch.Tensor, behaviours: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(events, behaviour) from (events, target), (events, T, behaviour) and (events, T).

        The first columns of a behaviour are its item's embedding. The network reads the behaviour, the target, their
        difference and their product. All four are linear in the behaviour for one target, so its first layer is a
        matrix and a bias for each event: the four are never written out for every behaviour.
        """
        of_behaviour, of_target, of_difference, of_product = self.first.weight.T.split(self.parts)
        of_item = target[..., None] * of_product - of_difference
        matrix = of_behaviour + pad(of_item, (0, 0, 0, behaviours.shape[-1] - target.shape[-1]))
        bias = self.first.bias + target @ (of_target + of_difference)
        weights = self.rest(torch.baddbmm(bias[:, None], behaviours, matrix))[..., 0]
        return ((weights * mask)[:, None] @ behaviours)[:, 0]


class DIN(CTRNetwork):
    """The interest that the target wakes, beside user and target."""

    def __init__(self, encoder: FeatureEncoder, **options: Any) -> None:
        super().__init__(encoder, **options)
        widths = self.embeddings.target_width, self.embeddings.behaviour_width
        self.interest = Interest(*widths)
        self.deep = self.final(self.embeddings.flat_width + widths[1])

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        interest = self.interest(embedded.target, embedded.behaviours, embedded.mask)
        return self.deep(torch.cat([embedded.flat, interest], 1))
