"""AutoInt (Song et al. 2019): self-attention between fields, so that each layer crosses the features of the last."""

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
class AutoIntConfig(NetworkConfig):
    """Sizes of `AutoInt`."""

    num_heads: int = option(2, "Number of heads of an attention layer.")
    num_layers: int = option(3, "Number of attention layers.")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("num_heads", "num_layers"), (), ())
        self.refuse_indivisible("embedding_dim", "num_heads")


class AutoInt(CTRNetwork[AutoIntConfig]):
    """Apply self-attention between fields with residual connections (section 4.4).

    The final layers read its output and the embeddings, as in AutoInt+; without them it is well below DeepFM. Attention
    is that of Transformers: products are divided by the root of a head's size, and a linear map joins the heads.
    """

    config_class = AutoIntConfig

    def __init__(self, encoder: FeatureEncoder, config: AutoIntConfig) -> None:
        super().__init__(encoder, config)
        size, layers = config.embedding_dim, range(config.num_layers)
        self.crosses = nn.ModuleList(
            nn.MultiheadAttention(size, config.num_heads, batch_first=True, bias=False) for _ in layers
        )
        self.residuals = nn.ModuleList(nn.Linear(size, size, bias=False) for _ in layers)
        self.deep = self.final_layers(2 * self.embeddings.all_size)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """See `CTRNetwork.hidden`."""
        fields = embedded.all_fields
        for cross, residual in zip(self.crosses, self.residuals, strict=True):
            fields = torch.relu(cross(fields, fields, fields, need_weights=False)[0] + residual(fields))
        return self.deep(torch.cat([fields.flatten(1), embedded.all_fields.flatten(1)], 1))
