"""eSASRec's layers against their formulas, written position by position."""

import pytest
import torch
from torch.nn.functional import layer_norm, silu

from lorarec.recommenders.sequential.esasrec_encoder import ESASRecEncoder, LiGRLayer


def _attention(layer: LiGRLayer, states: torch.Tensor, position: int) -> torch.Tensor:
    """Softmax attention of one position of (length, hidden_size) to itself and those before it."""
    inward, outward = layer.attention.inward, layer.attention.outward
    size = states.shape[1]
    query, _, _ = inward(states[position]).split(size)
    _, keys, values = inward(states[: position + 1]).split(size, dim=1)
    weights = torch.softmax(keys @ query / size**0.5, 0)
    return outward(weights @ values)


def _feed_forward(layer: LiGRLayer, state: torch.Tensor) -> torch.Tensor:
    w1, w2 = layer.feed_forward.inward.weight.chunk(2)
    return layer.feed_forward.outward.weight @ (silu(w1 @ state) * (w2 @ state))


def _gate(linear: torch.nn.Module, state: torch.Tensor) -> torch.Tensor:
    return 1 / (1 + torch.exp(-linear(state)))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_layers_are_those_of_the_formulas(num_layers: int) -> None:
    torch.manual_seed(0)
    model = ESASRecEncoder(8, 6, num_layers, 0.3).eval()
    history = torch.randn(5, 8)
    states = history + model.places.weight[:5]
    for layer in model.layers:
        assert isinstance(layer, LiGRLayer)
        normed = layer_norm(states, (8,))
        attended = [_gate(layer.gates[0], states[k]) * _attention(layer, normed, k) for k in range(5)]
        states = states + torch.stack(attended)
        normed = layer_norm(states, (8,))
        states = states + torch.stack(
            [_gate(layer.gates[1], states[k]) * _feed_forward(layer, normed[k]) for k in range(5)]
        )
    torch.testing.assert_close(model(history[None])[0], layer_norm(states, (8,)), atol=1e-5, rtol=1e-5)
