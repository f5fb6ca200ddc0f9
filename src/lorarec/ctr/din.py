"""DIN (Zhou et al. 2018): the history is weighted by its relevance to the target."""

import torch
from torch import nn
from torch.nn.functional import pad

from lorarec.ctr.embeddings import EmbeddedBatch
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.network import CTRNetwork, NetworkConfig


class Interest(nn.Module):
    """Sum up the behaviours, each weighted by a small network on the behaviour and the target (section 4.3).

    The weights are not normalised, so that many relevant behaviours count for more than one.

    Args:
        target_size: Size of the target's embedding.
        behaviour_size: Size of a behaviour's embedding: that of its item and that of its rating.
    """

    def __init__(self, target_size: int, behaviour_size: int) -> None:
        super().__init__()
        self.parts = behaviour_size, target_size, target_size, target_size
        self.first = nn.Linear(sum(self.parts), 36)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(36, 1))

    def forward(self, target: torch.Tensor, behaviours: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum of the behaviours (events, behaviour_size).

        The first columns of a behaviour are its item's embedding. The network reads the behaviour, the target, their
        difference and their product. All four are linear in the behaviour for one target, so the first layer is one
        matrix and one bias per event, and the four are never computed for every behaviour.

        Args:
            target: Embeddings of the targets (events, target_size).
            behaviours: Embeddings of the behaviours (events, T, behaviour_size).
            mask: Mask of the behaviours that exist (events, T).
        """
        of_behaviour, of_target, of_difference, of_product = self.first.weight.T.split(self.parts)
        of_item = target[..., None] * of_product - of_difference
        matrix = of_behaviour + pad(of_item, (0, 0, 0, behaviours.shape[-1] - target.shape[-1]))
        bias = self.first.bias + target @ (of_target + of_difference)
        weights = self.rest(torch.baddbmm(bias[:, None], behaviours, matrix))[..., 0]
        return ((weights * mask)[:, None] @ behaviours)[:, 0]


class DIN(CTRNetwork[NetworkConfig]):
    """Apply final layers to user, target and the interest of the user that the target activates."""

    def __init__(self, encoder: FeatureEncoder, config: NetworkConfig) -> None:
        super().__init__(encoder, config)
        target_size, behaviour_size = self.embeddings.target_size, self.embeddings.behaviour_size
        self.interest = Interest(target_size, behaviour_size)
        self.deep = self.final_layers(self.embeddings.flat_size + behaviour_size)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """See `CTRNetwork.hidden`."""
        interest = self.interest(embedded.target, embedded.behaviours, embedded.mask)
        return self.deep(torch.cat([embedded.flat, interest], 1))
