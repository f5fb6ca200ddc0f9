"""SIM (Pi et al. 2020): of a lifelong history the behaviours relevant to the target are searched, then weighed."""

from typing import Any

import torch
from torch import nn

from lorarec.conventional.base import Recommender
from lorarec.conventional.din import Interest
from lorarec.conventional.embeddings import Embedded
from lorarec.conventional.fields import Encoder


class SIM(Recommender):
    """Soft search (section 3.1) by inner product of embeddings, then multi-head attention over what it found (3.2).

    The latest behaviours are weighed as in DIN beside it. The paper trains the search by a loss of its own; here the
    attention's gradient trains the embeddings that the search compares.

    Args:
        found: behaviours that the search keeps.
        latest: behaviours of the short history.
        heads: of the attention.
    """

    def __init__(self, encoder: Encoder, found: int = 20, latest: int = 10, heads: int = 2, **options: Any) -> None:
        super().__init__(encoder, **options)
        self.found = found
        self.latest = latest
        target, behaviour = self.embeddings.target_width, self.embeddings.behaviour_width
        self.interest = Interest(target, behaviour)
        size = 64
        self.query, self.key = nn.Linear(target, size), nn.Linear(behaviour, size)
        self.attention = nn.MultiheadAttention(size, heads, batch_first=True)
        self.deep = self.final(self.embeddings.flat_width + size + behaviour)

    def hidden(self, embedded: Embedded) -> torch.Tensor:
        recent = embedded.mask & (torch.arange(embedded.mask.shape[1]) > embedded.last[:, None] - self.latest)
        short = self.interest(embedded.target, embedded.history, embedded.behaviours, recent)
        parts = [embedded.fields.flatten(1), self._long(embedded), short]
        return self.deep(torch.cat(parts, 1))

    def _long(self, embedded: Embedded) -> torch.Tensor:
        """(events, size) what the search finds, summed up by attention; zeros for an empty history."""
        relevance = (embedded.history @ embedded.target[..., None])[..., 0].detach()
        relevance = relevance.masked_fill(~embedded.mask, -torch.inf)
        places = relevance.topk(min(self.found, relevance.shape[1]), dim=1).indices
        behaviours = embedded.behaviours
        keys = self.key(behaviours.gather(1, places[..., None].expand(-1, -1, behaviours.shape[-1])))
        present = embedded.mask.gather(1, places)
        # A history without items attends to one of its padding places, whose result is then dropped.
        ignored = ~present
        ignored[:, 0] = False
        query = self.query(embedded.target)[:, None]
        result = self.attention(query, keys, keys, key_padding_mask=ignored, need_weights=False)[0][:, 0]
        return result * present.any(1, keepdim=True)
