"""DCNv2 (Wang et al. 2021): explicit feature crosses of increasing degree beside a deep network."""

from dataclasses import dataclass

import torch
from torch import nn

from lorarec.ctr.embeddings import EmbeddedBatch
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.network import CTRNetwork, NetworkConfig
from lorarec.errors import refuse_out_of_range
from lorarec.options import document_options, option


@document_options
@dataclass(frozen=True)
class DCNv2Config(NetworkConfig):
    """Sizes of `DCNv2`."""

    num_layers: int = option(3, "Number of cross layers; the highest degree of a cross is one more.")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("num_layers",), (), ())


class DCNv2(CTRNetwork[DCNv2Config]):
    """Apply cross layers x_{l+1} = x_0 * (W x_l + b) + x_l (equation 1) in parallel with final layers."""

    config_class = DCNv2Config

    def __init__(self, encoder: FeatureEncoder, config: DCNv2Config) -> None:
        super().__init__(encoder, config)
        size, last = self.embeddings.all_size, config.hidden_units[-1]
        self.crosses = nn.ModuleList(nn.Linear(size, size) for _ in range(config.num_layers))
        self.deep = self.final_layers(size)
        self.join = nn.Sequential(nn.Linear(size + last, last), nn.ReLU())

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """See `CTRNetwork.hidden`."""
        start = embedded.all_fields.flatten(1)
        crossed = start
        for cross in self.crosses:
            crossed = start * cross(crossed) + crossed
        return self.join(torch.cat([crossed, self.deep(start)], 1))
