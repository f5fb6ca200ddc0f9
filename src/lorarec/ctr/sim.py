"""SIM (Pi et al. 2020): of a lifelong history the behaviours relevant to the target are searched, then weighed."""

from typing import Any

import torch

from lorarec.ctr.din import Interest
from lorarec.ctr.embeddings import EmbeddedBatch
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.network import CTRNetwork


class SIM(CTRNetwork):
    """Soft search by inner product of embeddings (section 3.1), then the interest in what it found (3.2).

    The latest behaviours are weighed beside it. Both are weighed as in DIN, where the paper has multi-head attention
    for what is found. The paper trains the search by a loss of its own; here the click loss trains the embeddings
    that the search compares. The time between a behaviour and the target, which the paper embeds too, is left out.

    Args:
        found: behaviours that the search keeps.
        latest: behaviours of the short history.
    """

    def __init__(self, encoder: FeatureEncoder, found: int = 20, latest: int = 10, **options: Any) -> None:
        super().__init__(encoder, **options)
        self.found = found
        self.latest = latest
        target, behaviour = self.embeddings.target_width, self.embeddings.behaviour_width
        self.long, self.short = Interest(target, behaviour), Interest(target, behaviour)
        self.deep = self.final(self.embeddings.flat_width + 2 * behaviour)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        target, behaviours, mask = embedded.target, embedded.behaviours, embedded.mask
        recent = mask & (torch.arange(mask.shape[1]) > embedded.last[:, None] - self.latest)
        short = self.short(target, behaviours, recent)
        rows, places = torch.arange(len(mask))[:, None], self._search(embedded)
        long = self.long(target, behaviours[rows, places], mask[rows, places])
        return self.deep(torch.cat([embedded.flat, long, short], 1))

    def _search(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """(events, at most `found`) places in the history, the most relevant first."""
        relevance = (embedded.history * embedded.target[:, None]).sum(-1).detach()
        relevance = relevance.masked_fill(~embedded.mask, -torch.inf)
        # A stable sort: the same item at several places is found in the same order, however much padding there is.
        return relevance.sort(dim=1, descending=True, stable=True).indices[:, : self.found]
