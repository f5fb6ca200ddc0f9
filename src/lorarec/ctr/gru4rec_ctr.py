"""GRU4Rec (Hidasi et al. 2016) as a click-through model: a recurrent network over the history."""

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
class GRU4RecCTRConfig(NetworkConfig):
    """Sizes of `GRU4RecCTR`."""

    hidden_size: int = option(64, "Size of the recurrent state.")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("hidden_size",), (), ())


class GRU4RecCTR(CTRNetwork[GRU4RecCTRConfig]):
    """Apply final layers to user, target and the recurrent state after the latest item."""

    config_class = GRU4RecCTRConfig

    def __init__(self, encoder: FeatureEncoder, config: GRU4RecCTRConfig) -> None:
        super().__init__(encoder, config)
        self.recurrent = nn.GRU(self.embeddings.behaviour_size, config.hidden_size, batch_first=True)
        self.deep = self.final_layers(self.embeddings.flat_size + config.hidden_size)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """See `CTRNetwork.hidden`."""
        states = self.recurrent(embedded.behaviours)[0]
        # Padding comes after the latest item, so that item's state does not depend on it.
        return self.deep(torch.cat([embedded.flat, embedded.at_last(states)], 1))
