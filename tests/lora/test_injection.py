"""Merging: no update is lost in the data type of the weights."""

import pytest
import torch
from torch import nn

from lorarec.errors import LorarecError
from lorarec.lora import Adapter, MixedLinear, merge, read_adapter

LAYER = "model.layers.0.self_attn.q_proj"


def adapter_of(scale: float) -> Adapter:
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(2, 16, generator=generator), torch.randn(16, 2, generator=generator)
    return Adapter({LAYER: (a, b)}, {LAYER: scale})


def output(model, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.get_submodule(LAYER)(x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("scale", [1e-1, 1e-3, 1e-4, 1e-5])
def test_small_updates_are_not_rounded_away(dtype, scale, qwen2) -> None:
    model = qwen2.to(dtype)
    adapter = adapter_of(scale)
    weight = model.get_submodule(LAYER).weight.detach().double()
    merged_model = merge(model, adapter)
    layer = model.get_submodule(LAYER)
    a, b = (factor.double() for factor in adapter.tensors[LAYER])
    delta = scale * b @ a
    if isinstance(layer, MixedLinear):
        assert dtype != torch.float32
        assert layer.a.dtype == dtype
        found = scale * layer.b[0].double() @ layer.a[0].double()
    else:
        found = layer.weight.detach().double() - weight
    assert (found - delta).norm() <= 0.1 * delta.norm()
    merged_model.unmerge()
    assert torch.equal(model.get_submodule(LAYER).weight.double(), weight)


def test_both_ways_occur(qwen2) -> None:
    kinds = []
    for scale in (1e-1, 1e-5):
        merged_model = merge(qwen2.bfloat16(), adapter_of(scale))
        kinds.append(type(qwen2.get_submodule(LAYER)))
        merged_model.unmerge()
    assert kinds == [nn.Linear, MixedLinear]


def test_updates_beyond_float16_are_not_merged(qwen2) -> None:
    model = qwen2.half()
    with torch.no_grad():
        model.get_submodule(LAYER).weight.fill_(65_000)
    merge(model, adapter_of(500.0))
    assert isinstance(model.get_submodule(LAYER), MixedLinear)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_updates_that_are_no_numbers_are_refused(dtype, qwen2) -> None:
    """Finite factors with an infinite product; layers that were merged before get their weights back."""
    model, (a, b) = qwen2.to(dtype), adapter_of(1.0).tensors[LAYER]
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    last = LAYER.replace("layers.0", "layers.1")
    adapter = Adapter({LAYER: (a, b), last: (a * 1e25, b * 1e25)}, {LAYER: 1.0, last: 1.0})
    with pytest.raises(LorarecError, match=f"update of {last} is NaN or infinite"):
        merge(model, adapter)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_zero_updates_change_nothing(qwen2) -> None:
    model = qwen2.bfloat16()
    weight = model.get_submodule(LAYER).weight.clone()
    merge(model, adapter_of(0.0))
    assert torch.equal(model.get_submodule(LAYER).weight, weight)


class Doubling(nn.Linear):
    """A subclass of `nn.Linear` that computes something else, as quantised and clipped layers do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Packed(torch.Tensor):
    """Weights that only look like floats."""


@pytest.mark.parametrize("kind", ["subclass", "tensor"])
def test_layers_of_other_kinds_keep_their_weights(kind, qwen2) -> None:
    layer = qwen2.get_submodule(LAYER)
    if kind == "subclass":
        layer.__class__ = Doubling
    else:
        layer.weight = nn.Parameter(layer.weight.data.as_subclass(Packed), requires_grad=False)
    x = torch.randn(2, 3, 16)
    adapter = adapter_of(0.5)
    a, b = adapter.tensors[LAYER]
    expected = output(qwen2, x) + 0.5 * x @ a.T @ b.T
    merged_model = merge(qwen2, adapter)
    assert qwen2.get_submodule(LAYER).base_layer is layer
    torch.testing.assert_close(output(qwen2, x).as_subclass(torch.Tensor), expected.as_subclass(torch.Tensor))
    merged_model.unmerge()
    assert qwen2.get_submodule(LAYER) is layer


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_8_bit_floats_are_refused(dtype, qwen2, make_adapter, as_backbone) -> None:
    layer = qwen2.get_submodule(LAYER)
    layer.weight = nn.Parameter(layer.weight.data.to(dtype), requires_grad=False)
    folder = make_adapter("qwen2", 1)
    with pytest.raises(LorarecError, match=rf"{LAYER} in 8-bit floats"):
        read_adapter(folder, as_backbone(qwen2))
    for adapter in (read_adapter(folder), adapter_of(0.5)):
        with pytest.raises(LorarecError, match=r"in 8-bit floats, .*: load the model"):
            merge(qwen2, adapter)
        assert qwen2.get_submodule(LAYER) is layer
