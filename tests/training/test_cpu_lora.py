import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from lorarec.training.cpu_lora import LoraProduct, dropped_positions, speed_up


class TwoLayers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 5), torch.nn.Linear(5, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def build(dropout: float = 0.0):
    torch.manual_seed(0)
    config = LoraConfig(
        r=3, lora_alpha=7, lora_dropout=dropout, target_modules=["first", "second"], init_lora_weights=False
    )
    return get_peft_model(TwoLayers(), config)


def outcome(model, x):
    model.zero_grad()
    y = model(x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *(weight.grad for _, weight in model.named_parameters() if weight.requires_grad)]


@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 3, 6)])
def test_same_results_and_gradients_as_peft(shape) -> None:
    model = build()
    x = torch.randn(shape)
    expected = outcome(model, x.clone().requires_grad_())
    speed_up(model)
    found = outcome(model, x.clone().requires_grad_())
    assert len(found) == 6
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(found, expected, strict=True))


def test_gradients_with_dropout_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    x, a, b = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in [(4, 6), (3, 6), (5, 3)])
    weight, bias = torch.randn(5, 6, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    dropped = torch.tensor([0, 7, 8, 23])
    assert torch.autograd.gradcheck(lambda x, a, b: LoraProduct.apply(x, weight, bias, a, b, 0.7, dropped), (x, a, b))


def test_dropout_is_in_the_adapter_only_and_follows_the_seed() -> None:
    model, x = build(0.5), torch.randn(200, 6)
    base, without = model.get_base_model().first.base_layer(x), build(0.5).eval().get_base_model().first(x)
    speed_up(model)
    layer = model.get_base_model().first
    torch.manual_seed(3)
    first, second = layer(x), layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    mean = torch.stack([layer(x) for _ in range(400)]).mean(0)
    assert (mean - without).abs().mean() < 0.1 * (without - base).abs().mean()
    assert torch.allclose(layer.eval()(x), without, atol=1e-6)


@settings(max_examples=30)
@given(size=st.integers(1, 5000), p=st.floats(1e-4, 0.95), seed=st.integers(0, 99))
def test_places_are_distinct_sorted_and_inside(size, p, seed) -> None:
    torch.manual_seed(seed)
    places = dropped_positions(size, p)
    assert torch.equal(places, places.unique())
    assert all(0 <= place < size for place in places.tolist())


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_every_place_is_dropped_equally_often(p) -> None:
    torch.manual_seed(0)
    draws = 4000
    counts = torch.zeros(10)
    for _ in range(draws):
        counts[dropped_positions(10, p)] += 1
    error = 5 * (p * (1 - p) / draws) ** 0.5
    assert ((counts / draws - p).abs() < error).all()
