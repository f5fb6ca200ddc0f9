"""SASRec (Kang and McAuley 2018) as a click-through model: causal self-attention over the history."""

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
class SASRecCTRConfig(NetworkConfig):
    """Sizes of `SASRecCTR`."""

    hidden_size: int = option(64, "Size of the states of the attention layers.")
    num_heads: int = option(2, "Number of heads of an attention layer.")
    num_layers: int = option(2, "Number of attention layers.")
    max_positions: int = option(60, "Number of positions that have an embedding of their own.")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("hidden_size", "num_heads", "num_layers", "max_positions"), (), ())
        self.refuse_indivisible("hidden_size", "num_heads")


class SASRecCTR(CTRNetwork[SASRecCTRConfig]):
    """Apply final layers to user, target and the attention output at the latest item.

    Positions are counted back from the latest item.
    """

    config_class = SASRecCTRConfig

    def __init__(self, encoder: FeatureEncoder, config: SASRecCTRConfig) -> None:
        super().__init__(encoder, config)
        size = config.hidden_size
        self.project = nn.Linear(self.embeddings.behaviour_size, size)
        self.places = nn.Embedding(config.max_positions, size)
        nn.init.normal_(self.places.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            size, config.num_heads, 2 * size, config.dropout, batch_first=True, norm_first=True
        )
        self.attention = nn.TransformerEncoder(layer, config.num_layers, enable_nested_tensor=False)
        self.deep = self.final_layers(self.embeddings.flat_size + size)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """See `CTRNetwork.hidden`."""
        behaviours = embedded.behaviours
        length = behaviours.shape[1]
        back = (embedded.last[:, None] - torch.arange(length)).clamp(0, self.places.num_embeddings - 1)
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        states = self.attention(self.project(behaviours) + self.places(back), mask=causal)
        return self.deep(torch.cat([embedded.flat, embedded.at_last(states)], 1))
