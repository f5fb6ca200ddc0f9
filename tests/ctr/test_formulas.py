"""The forward pass of each network equals the formula of its paper, computed event by event without padding."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lorarec.ctr import MODELS, CTRNetwork, NetworkConfig
from lorarec.ctr.autoint import AutoInt
from lorarec.ctr.caser import Caser, CaserConfig
from lorarec.ctr.dcnv2 import DCNv2
from lorarec.ctr.deepfm import DeepFM
from lorarec.ctr.din import DIN, Interest
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.gru4rec_ctr import GRU4RecCTR
from lorarec.ctr.registry import new_network
from lorarec.ctr.sasrec_ctr import SASRecCTR, SASRecCTRConfig
from lorarec.ctr.sim import SIM, SIMConfig
from lorarec.data.click_logs import ClickLog

#: Events whose histories have every length from 0 to 11.
EVENTS = np.arange(15)


def _network(name: str, log: ClickLog, config: NetworkConfig | None = None) -> CTRNetwork[Any]:
    """A network in float64 whose embeddings are as large as its other weights, so that no term is lost."""
    torch.manual_seed(0)
    network = new_network(name, FeatureEncoder(log, 60), config).double().eval()
    for table in network.embeddings.modules():
        if isinstance(table, nn.Embedding):
            nn.init.normal_(table.weight[1:], std=0.3)
    return network


class Event:
    """The embeddings of one event, looked up value by value.

    Attributes:
        fields: Embeddings of the fields of user and target (fields, d).
        target: Embeddings of the target's fields, one after the other.
        items: Embeddings of each history item's fields (T, item fields * d).
        behaviours: The same with the embedding of the rating (T, item fields * d + d).
        all_fields: `fields` and the means of the history's fields and ratings.
    """

    def __init__(self, network: CTRNetwork[Any], log: ClickLog, event: int) -> None:
        encoder, tables = FeatureEncoder(log, 60), network.embeddings

        def embedded(fields: Any, modules: Any, row: int) -> list[torch.Tensor]:
            found = []
            for field, table in zip(fields, modules, strict=True):
                known = [int(value) for value in field.table[row] if value]
                vectors = [table.weight[value] for value in known] or [torch.zeros(table.embedding_dim).double()]
                found.append(torch.stack(vectors).mean(0))
            return found

        user = embedded(encoder.users, tables.user, log.user[event])
        target = embedded(encoder.items, tables.item, log.item[event])
        same_user = np.flatnonzero((log.user == log.user[event]) & (log.time < log.time[event]))
        past = same_user[np.argsort(log.time[same_user], kind="stable")]
        width = tables.rating.embedding_dim
        rows = [embedded(encoder.items, tables.item, log.item[row]) for row in past]
        ratings = [tables.rating.weight[round(2 * float(log.rating[row])) + 1] for row in past]
        self.fields = torch.stack(user + target)
        self.target = torch.cat(target)
        self.items = torch.stack([torch.cat(row) for row in rows]) if rows else torch.zeros(0, width * len(target))
        self.items = self.items.double()
        self.behaviours = torch.cat([self.items, torch.stack(ratings)], 1) if rows else self._nothing(width)
        means = self.behaviours.mean(0) if rows else torch.zeros(self.behaviours.shape[1]).double()
        self.all_fields = torch.cat([self.fields, means.view(-1, width)])

    def _nothing(self, width: int) -> torch.Tensor:
        return torch.zeros(0, self.items.shape[1] + width).double()


def _deepfm(network: DeepFM, event: Event) -> torch.Tensor:
    fields = event.all_fields
    logit = network.head(network.deep(fields.flatten()))[0] + fields.flatten() @ network.first_order.weight[0]
    for i in range(len(fields)):
        for j in range(i):
            logit = logit + fields[i] @ fields[j]
    return logit


def _dcnv2(network: DCNv2, event: Event) -> torch.Tensor:
    start = crossed = event.all_fields.flatten()
    for layer in network.crosses:
        crossed = torch.stack(
            [start[i] * (layer.weight[i] @ crossed + layer.bias[i]) + crossed[i] for i in range(len(start))]
        )
    return network.head(network.join(torch.cat([crossed, network.deep(start)])))[0]


def _attention(layer: nn.MultiheadAttention, states: torch.Tensor, causal: bool) -> torch.Tensor:
    """Scaled dot products of every head, row by row."""
    size, heads = layer.embed_dim, layer.num_heads
    bias = torch.zeros(3 * size).double() if layer.in_proj_bias is None else layer.in_proj_bias
    query, key, value = (states @ layer.in_proj_weight.T + bias).split(size, 1)
    rows = []
    for place in range(len(states)):
        seen = place + 1 if causal else len(states)
        parts = []
        for head in range(heads):
            columns = slice(head * size // heads, (head + 1) * size // heads)
            products = key[:seen, columns] @ query[place, columns] / math.sqrt(size // heads)
            parts.append((products.exp() / products.exp().sum()) @ value[:seen, columns])
        rows.append(torch.cat(parts))
    out = torch.stack(rows) @ layer.out_proj.weight.T
    return out if layer.out_proj.bias is None else out + layer.out_proj.bias


def _autoint(network: AutoInt, event: Event) -> torch.Tensor:
    fields = event.all_fields
    for cross, residual in zip(network.crosses, network.residuals, strict=True):
        fields = (_attention(cross, fields, causal=False) + fields @ residual.weight.T).relu()
    return network.head(network.deep(torch.cat([fields.flatten(), event.all_fields.flatten()])))[0]


def _gru4rec(network: GRU4RecCTR, event: Event) -> torch.Tensor:
    gru, state = network.recurrent, torch.zeros(network.config.hidden_size).double()
    for behaviour in event.behaviours:
        reset, update, new = (gru.weight_ih_l0 @ behaviour + gru.bias_ih_l0).chunk(3)
        old_reset, old_update, old_new = (gru.weight_hh_l0 @ state + gru.bias_hh_l0).chunk(3)
        gate = (update + old_update).sigmoid()
        state = (1 - gate) * (new + (reset + old_reset).sigmoid() * old_new).tanh() + gate * state
    return network.head(network.deep(torch.cat([event.fields.flatten(), state])))[0]


def _caser(network: Caser, event: Event) -> torch.Tensor:
    window = network.config.window
    latest = event.behaviours[-window:]
    image = torch.cat([torch.zeros(window - len(latest), event.behaviours.shape[1]).double(), latest])
    patterns = []
    for filters in network.horizontal:
        for weight, bias in zip(filters.weight, filters.bias, strict=True):
            height = weight.shape[1]
            found = [(image[top : top + height] * weight.T).sum() + bias for top in range(window - height + 1)]
            patterns.append(torch.stack(found).relu().max())
    vertical = [image[:, column] @ weight for column in range(image.shape[1]) for weight in network.vertical.weight]
    return network.head(network.deep(torch.cat([event.fields.flatten(), torch.stack([*patterns, *vertical])])))[0]


def _sasrec(network: SASRecCTR, event: Event) -> torch.Tensor:
    state = torch.zeros(network.config.hidden_size).double()
    if len(event.behaviours):
        back = [min(number, network.config.max_positions - 1) for number in range(len(event.behaviours))][::-1]
        states = network.project(event.behaviours) + network.places.weight[back]
        for layer in network.attention.layers:
            states = states + _attention(layer.self_attn, layer.norm1(states), causal=True)
            states = states + layer.linear2(layer.linear1(layer.norm2(states)).relu())
        state = states[-1]
    return network.head(network.deep(torch.cat([event.fields.flatten(), state])))[0]


def _interest(interest: Interest, event: Event, places: Iterator[int] | range | list[int]) -> torch.Tensor:
    total = torch.zeros(event.behaviours.shape[1]).double()
    for place in places:
        behaviour, item = event.behaviours[place], event.items[place]
        read = torch.cat([behaviour, event.target, event.target - item, event.target * item])
        total = total + interest.rest(interest.first(read)) * behaviour
    return total


def _din(network: DIN, event: Event) -> torch.Tensor:
    interest = _interest(network.interest, event, range(len(event.behaviours)))
    return network.head(network.deep(torch.cat([event.fields.flatten(), interest])))[0]


def _sim(network: SIM, event: Event) -> torch.Tensor:
    count, config = len(event.behaviours), network.config
    relevance = [float(item @ event.target) for item in event.items]
    searched = sorted(range(count), key=lambda place: (-relevance[place], place))[: config.num_retrieved]
    long = _interest(network.long, event, searched)
    short = _interest(network.short, event, range(max(0, count - config.num_recent), count))
    return network.head(network.deep(torch.cat([event.fields.flatten(), long, short])))[0]


FORMULAS: dict[str, tuple[Any, NetworkConfig | None]] = {
    "deepfm": (_deepfm, None),
    "autoint": (_autoint, None),
    "dcnv2": (_dcnv2, None),
    "gru4rec": (_gru4rec, None),
    "caser": (_caser, CaserConfig(window=4, filter_heights=(1, 3, 4))),
    "sasrec": (_sasrec, SASRecCTRConfig(max_positions=5)),
    "din": (_din, None),
    "sim": (_sim, SIMConfig(num_retrieved=3, num_recent=2)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_forward_pass_is_the_formula(name: str, small_log: ClickLog) -> None:
    formula, config = FORMULAS[name]
    network = _network(name, small_log, config)
    with torch.no_grad():
        found = network(FeatureEncoder(small_log, 60).batch(EVENTS))
        expected = torch.stack([formula(network, Event(network, small_log, event)) for event in EVENTS])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert found.std() > 1e-3
