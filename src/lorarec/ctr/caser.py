"""Caser (Tang and Wang 2018) as a click-through model: convolutions over the latest items as over an image."""

from dataclasses import dataclass

import torch
from torch import nn

from lorarec.ctr.embeddings import EmbeddedBatch
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.network import CTRNetwork, NetworkConfig
from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.options import document_options, option


@document_options
@dataclass(frozen=True)
class CaserConfig(NetworkConfig):
    """Sizes of `Caser`."""

    window: int = option(10, "Number of items of the history that are read, the latest.")
    num_filters: int = option(16, "Number of horizontal filters of each height.")
    filter_heights: tuple[int, ...] = option((1, 2, 3, 4), "Numbers of successive items that horizontal filters span.")
    num_vertical_filters: int = option(4, "Number of vertical filters.")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "filter_heights", tuple(self.filter_heights))  # JSON has lists
        refuse_out_of_range(self, ("window", "num_filters", "num_vertical_filters"), (), ())
        if not all(1 <= height <= self.window for height in self.filter_heights):
            raise LorarecError(
                f"option filter_heights must be numbers from 1 to window, {self.window}, got {self.filter_heights}"
            )


class Caser(CTRNetwork[CaserConfig]):
    """Apply horizontal filters to successive items and vertical filters to positions (sections 3.2, 3.3)."""

    config_class = CaserConfig

    def __init__(self, encoder: FeatureEncoder, config: CaserConfig) -> None:
        super().__init__(encoder, config)
        size = self.embeddings.behaviour_size
        self.horizontal = nn.ModuleList(nn.Conv1d(size, config.num_filters, height) for height in config.filter_heights)
        self.vertical = nn.Linear(config.window, config.num_vertical_filters, bias=False)
        convolved = config.num_filters * len(config.filter_heights) + config.num_vertical_filters * size
        self.deep = self.final_layers(self.embeddings.flat_size + convolved)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """See `CTRNetwork.hidden`."""
        image = self._latest(embedded).mT
        patterns = [torch.relu(filters(image)).amax(-1) for filters in self.horizontal]
        return self.deep(torch.cat([embedded.flat, *patterns, self.vertical(image).flatten(1)], 1))

    def _latest(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """Return the latest items (events, window, size), with zeros before the first."""
        count = embedded.mask.sum(1, keepdim=True)
        positions = count - self.config.window + torch.arange(self.config.window)
        behaviours = embedded.behaviours
        index = positions.clamp(min=0)[..., None].expand(-1, -1, behaviours.shape[-1])
        return behaviours.gather(1, index) * (positions >= 0)[..., None]
