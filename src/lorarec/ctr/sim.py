"""SIM (Pi et al. 2020): search a lifelong history for behaviours that are relevant to the target, then weight them."""

from dataclasses import dataclass

import torch

from lorarec.ctr.din import Interest
from lorarec.ctr.embeddings import EmbeddedBatch
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.network import CTRNetwork, NetworkConfig
from lorarec.errors import refuse_out_of_range
from lorarec.options import document_options, option


@document_options
@dataclass(frozen=True)
class SIMConfig(NetworkConfig):
    """Sizes of `SIM`."""

    num_retrieved: int = option(20, "Number of behaviours that the search returns.")
    num_recent: int = option(10, "Number of behaviours of the short history.")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("num_retrieved", "num_recent"), (), ())


class SIM(CTRNetwork[SIMConfig]):
    """Search by inner products of embeddings (section 3.1), then read the interest in the results (section 3.2).

    The interest in the latest behaviours is read as well. Both are weighted as in DIN, where the paper applies
    multi-head attention to the results. The paper trains the search by a loss of its own; here the click loss trains
    the embeddings that the search compares. The time between a behaviour and the target, which the paper embeds, is
    left out.
    """

    config_class = SIMConfig

    def __init__(self, encoder: FeatureEncoder, config: SIMConfig) -> None:
        super().__init__(encoder, config)
        sizes = self.embeddings.target_size, self.embeddings.behaviour_size
        self.long, self.short = Interest(*sizes), Interest(*sizes)
        self.deep = self.final_layers(self.embeddings.flat_size + 2 * self.embeddings.behaviour_size)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """See `CTRNetwork.hidden`."""
        target, behaviours, mask = embedded.target, embedded.behaviours, embedded.mask
        recent = mask & (torch.arange(mask.shape[1]) > embedded.last[:, None] - self.config.num_recent)
        short = self.short(target, behaviours, recent)
        rows, places = torch.arange(len(mask))[:, None], self._search(embedded)
        long = self.long(target, behaviours[rows, places], mask[rows, places])
        return self.deep(torch.cat([embedded.flat, long, short], 1))

    def _search(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """Return the positions of the most relevant behaviours (events, at most num_retrieved), the best first."""
        relevance = (embedded.history * embedded.target[:, None]).sum(-1).detach()
        relevance = relevance.masked_fill(~embedded.mask, -torch.inf)
        # The sort is stable, so that the order of equal behaviours does not depend on the length of the padding.
        return relevance.sort(dim=1, descending=True, stable=True).indices[:, : self.config.num_retrieved]
