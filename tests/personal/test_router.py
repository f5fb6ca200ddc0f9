import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lorarec.errors import LorarecError
from lorarec.personal import Router


def layer_by_layer(router: Router, x: torch.Tensor, temperature: float) -> torch.Tensor:
    """Reference: a network of torch's own layers for each adapted layer."""
    found = []
    for layer in range(len(router.hidden_weight)):
        norm, hidden, out = (
            nn.LayerNorm(router.input_size),
            nn.Linear(router.input_size, 60),
            nn.Linear(60, router.size),
        )
        with torch.no_grad():
            norm.weight.copy_(router.norm_weight[layer, 0])
            norm.bias.copy_(router.norm_bias[layer, 0])
            for linear, name in ((hidden, "hidden"), (out, "out")):
                linear.weight.copy_(getattr(router, f"{name}_weight")[layer].T)
                linear.bias.copy_(getattr(router, f"{name}_bias")[layer, 0])
        found.append((nn.Sequential(norm, hidden, nn.ReLU(), out)(x) / temperature).softmax(1))
    return torch.stack(found)


@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 5), st.integers(1, 6), st.floats(0.5, 15))
def test_all_layers_at_once_equal_layer_by_layer(layers, input_size, size, batch, temperature):
    torch.manual_seed(layers + 5 * input_size)
    router = Router(layers, input_size, size, temperature).eval()
    with torch.no_grad():
        router.norm_weight.uniform_(0.5, 2)
        router.norm_bias.normal_()
    x = 3 * torch.randn(batch, input_size)
    weights = router(x)
    torch.testing.assert_close(weights, layer_by_layer(router, x, temperature), rtol=1e-5, atol=1e-5)


@given(st.integers(1, 9), st.floats(-6, 6), st.booleans())
def test_weights_are_on_the_simplex(size, power, training):
    weights = Router(3, 4, size).train(training)(10**power * torch.randn(5, 4))
    assert weights.shape == (3, 5, size)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 5))


def test_heat_evens_the_weights_out():
    x, weights = torch.randn(5, 4), []
    for temperature in (0.1, 1.0, 1e6):
        torch.manual_seed(0)
        weights.append(Router(2, 4, 3, temperature).eval()(x).amax(-1).mean())
    assert weights[0] > weights[1] > weights[2]
    torch.testing.assert_close(weights[2], torch.tensor(1 / 3))


def test_starts_as_linear_layers_do():
    torch.manual_seed(0)
    router = Router(200, 16, 4)
    for found, bound in ((router.hidden_weight, 1 / 4), (router.out_weight, 60**-0.5), (router.out_bias, 60**-0.5)):
        assert found.abs().max().item() == pytest.approx(bound, rel=0.02)
        assert found.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("shape", "message"), [((3, 5), r"of shape \(batch, 4\), got \(3, 5\)"), ((4,), r"got \(4,\)")]
)
def test_representations_that_do_not_fit(shape, message):
    with pytest.raises(LorarecError, match=message):
        Router(2, 4, 3)(torch.zeros(shape))


def test_representations_that_are_not_finite():
    with pytest.raises(LorarecError, match="NaN or infinite"):
        Router(2, 4, 3)(torch.tensor([[0.0, 0.0, 0.0, float("nan")]]))


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
def test_bad_temperature(temperature):
    with pytest.raises(LorarecError, match="temperature must be a positive number"):
        Router(2, 4, 3, temperature)


def test_bad_sizes():
    with pytest.raises(LorarecError, match="2 layers, input_size 4, 0 adapters"):
        Router(2, 4, 0)
