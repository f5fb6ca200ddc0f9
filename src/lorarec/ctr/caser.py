"""Caser (Tang and Wang 2018) as a click model: convolutions over the latest items as over an image."""

from typing import Any

import torch
from torch import nn

from lorarec.ctr.embeddings import EmbeddedBatch
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.network import CTRNetwork


class Caser(CTRNetwork):
    """Horizontal filters find patterns of successive items, vertical ones weigh items by place (sections 3.2, 3.3).

    Args:
        window: latest items that are seen.
        filters: horizontal filters of each height.
        heights: successive items that a horizontal filter spans.
        vertical: vertical filters.
    """

    def __init__(
        self,
        encoder: FeatureEncoder,
        window: int = 10,
        filters: int = 16,
        heights: tuple[int, ...] = (1, 2, 3, 4),
        vertical: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(encoder, **options)
        self.window = window
        width = self.embeddings.behaviour_width
        self.horizontal = nn.ModuleList(nn.Conv1d(width, filters, height) for height in heights)
        self.vertical = nn.Linear(window, vertical, bias=False)
        self.deep = self.final(self.embeddings.flat_width + filters * len(heights) + vertical * width)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        image = self._window(embedded).mT
        found = [torch.relu(filters(image)).amax(-1) for filters in self.horizontal]
        return self.deep(torch.cat([embedded.flat, *found, self.vertical(image).flatten(1)], 1))

    def _window(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """(events, window, width) the latest items, zeros before the first."""
        count = embedded.mask.sum(1, keepdim=True)
        places = count - self.window + torch.arange(self.window)
        behaviours = embedded.behaviours
        index = places.clamp(min=0)[..., None].expand(-1, -1, behaviours.shape[-1])
        return behaviours.gather(1, index) * (places >= 0)[..., None]
