import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from lorarec.errors import LorarecError
from lorarec.lora import AdapterBank, MixedLinear, StackedLayer, inject, merge

RULES = pytest.mark.parametrize("combine", ["factors", "deltas"])


def random_layer(adapters: int, rank: int, width: int, height: int) -> StackedLayer:
    return StackedLayer(
        torch.randn(adapters, rank, width),
        torch.randn(adapters, height, rank),
        torch.full((adapters,), 2.0),
        (rank,) * adapters,
    )


def mixture(model, folders, combine, weights):
    mixed = inject(model, AdapterBank.load(folders), combine)
    mixed.set_weights(weights)
    return mixed


@pytest.fixture
def folders(architecture, make_adapter):
    return [make_adapter(architecture, seed) for seed in (1, 2, 3)]


@RULES
def test_each_row_equals_that_row_by_itself(combine, model, folders, token_ids, logits_of):
    weights = torch.rand(len(token_ids), 3).softmax(1)
    mixed = mixture(model, folders, combine, weights)
    together = logits_of(model, token_ids)
    for row in range(len(token_ids)):
        mixed.set_weights(weights[row])
        separate = logits_of(model, token_ids[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], separate, rtol=1e-5, atol=1e-5)


@RULES
def test_merged_equals_unmerged_and_unmerge_is_exact(combine, model, folders, token_ids, logits_of):
    weights = torch.tensor([0.2, 0.3, 0.5])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with mixture(model, folders, combine, weights):
        expected = logits_of(model, token_ids)
    merged_model = merge(model, AdapterBank.load(folders).to_adapter(weights, combine))
    torch.testing.assert_close(logits_of(model, token_ids), expected, rtol=1e-5, atol=1e-5)
    merged_model.unmerge()
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@RULES
def test_one_hot_weights_equal_the_single_adapter(combine, model, folders, token_ids, logits_of):
    with mixture(model, folders, combine, torch.eye(3)[1]):
        chosen = logits_of(model, token_ids)
    with mixture(model, folders[1:2], combine, torch.ones(1)):
        torch.testing.assert_close(logits_of(model, token_ids), chosen, rtol=1e-5, atol=1e-5)


def test_without_weights_it_is_the_backbone(model, folders, token_ids, logits_of):
    expected = logits_of(model, token_ids)
    mixed = mixture(model, folders, "factors", torch.ones(3) / 3)
    assert not torch.allclose(logits_of(model, token_ids), expected)
    mixed.set_weights(None)
    assert torch.equal(logits_of(model, token_ids), expected)
    mixed.remove()
    assert not any(isinstance(module, MixedLinear) for module in model.modules())


@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 12), st.sampled_from([nn.Linear, Conv1D])
)
def test_merging_per_row_equals_gating_the_bank(adapters, rank, rows, tokens, kind):
    torch.manual_seed(adapters + 7 * rank + 31 * rows)
    base = nn.Linear(5, 6) if kind is nn.Linear else Conv1D(6, 5)
    layer = MixedLinear(base, random_layer(adapters, rank, 5, 6), "factors")
    layer.weights = torch.rand(rows, adapters).softmax(1)
    x = torch.randn(rows, tokens, 5)
    results = []
    for layer.strategy in ("merge", "gate", "auto"):
        results.append(layer(x))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(results[0], results[2], rtol=1e-5, atol=1e-5)


@RULES
@pytest.mark.parametrize("strategy", ["merge", "gate"])
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_gradients_of_weights_input_and_bank(combine, strategy, shape):
    torch.manual_seed(0)
    layer = MixedLinear(nn.Linear(4, 5), random_layer(3, 2, 4, 5), combine).double()
    layer.strategy = strategy
    free = [torch.rand(*shape).double(), torch.randn(2, 3, 4).double(), layer.a.data.clone(), layer.b.data.clone()]
    del layer.a, layer.b

    def run(weights, x, a, b):
        layer.weights, layer.a, layer.b = weights, a, b
        return layer(x)

    assert torch.autograd.gradcheck(run, [tensor.requires_grad_() for tensor in free])


def test_bank_is_frozen_unless_trainable():
    layer = MixedLinear(nn.Linear(4, 5), random_layer(3, 2, 4, 5), "factors")
    assert not layer.a.requires_grad
    layer.weights = torch.ones(3) / 3
    layer.requires_grad_(True)
    layer(torch.randn(2, 6, 4)).sum().backward()
    assert layer.a.grad is not None
    assert layer.b.grad is not None


def test_half_precision_backbone_keeps_its_dtype():
    layer = MixedLinear(nn.Linear(4, 5).bfloat16(), random_layer(2, 2, 4, 5), "deltas")
    weights = torch.ones(3, 2, requires_grad=True)
    layer.weights = weights
    out = layer(torch.randn(3, 6, 4, dtype=torch.bfloat16))
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert weights.grad.dtype == torch.float32


def test_rows_that_do_not_fit():
    layer = MixedLinear(nn.Linear(4, 5), random_layer(2, 2, 4, 5), "deltas")
    layer.weights = torch.ones(3, 2)
    with pytest.raises(LorarecError, match=r"weights for 3 rows do not fit an input of shape \(2, 6, 4\)"):
        layer(torch.randn(2, 6, 4))


def test_flattened_rows_equal_rows():
    layer = MixedLinear(nn.Linear(4, 5), random_layer(2, 2, 4, 5), "deltas")
    layer.weights = torch.rand(3, 2)
    x = torch.randn(3, 6, 4)
    torch.testing.assert_close(layer(x.flatten(0, 1)), layer(x).flatten(0, 1))
    torch.testing.assert_close(layer(x.view(3, 2, 3, 4)), layer(x).view(3, 2, 3, 5))
    with pytest.raises(LorarecError, match=r"weights for 3 rows do not fit an input of shape \(10, 4\)"):
        layer(torch.randn(10, 4))


def test_an_expert_has_no_weights_per_row():
    name = "model.layers.0.mlp.experts.3.up_proj"
    layer = MixedLinear(nn.Linear(4, 5), random_layer(2, 2, 4, 5), "deltas", name=name)
    layer.weights = torch.rand(3, 2)
    with pytest.raises(LorarecError, match=f"{name} is one of several experts"):
        layer(torch.randn(6, 4))
    layer.weights = torch.rand(2)
    assert layer(torch.randn(6, 4)).shape == (6, 5)


def test_model_without_the_layers(qwen2, make_adapter):
    bank = AdapterBank.load([make_adapter("gpt2", 1)])
    with pytest.raises(LorarecError, match="no linear layer"):
        inject(qwen2, bank, "factors")
    with pytest.raises(LorarecError, match="no linear layer"):
        merge(qwen2, bank.to_adapter(torch.ones(1), "factors"))
    assert not any(isinstance(module, MixedLinear) for module in qwen2.modules())


def test_merging_does_not_change_tied_weights():
    embedding, head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
    head.weight = embedding.weight
    model = nn.ModuleDict({"embedding": embedding, "head": head})
    before = embedding.weight.detach().clone()
    layer = random_layer(1, 2, 4, 6)
    bank = AdapterBank({"head": layer}, 1, {}, ("one",))
    merge(model, bank.to_adapter(torch.ones(1), "deltas"), reversible=False)
    assert torch.equal(embedding.weight, before)
    torch.testing.assert_close(head.weight.detach(), before + 2 * layer.b[0] @ layer.a[0])


class Quantised(nn.Linear):
    """A layer with integer weights and one scale, a simplified form of bitsandbytes' layers."""

    def __init__(self) -> None:
        super().__init__(4, 5, bias=False)
        self.weight = nn.Parameter(torch.arange(-10, 10, dtype=torch.int8).view(5, 4), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.weight.float() / 10).T


def test_adapter_is_not_merged_into_a_quantised_layer():
    model = nn.ModuleDict({"layer": Quantised(), "plain": nn.Linear(4, 5, bias=False)})
    quantised, plain = model["layer"], model["plain"].weight
    stack = random_layer(1, 2, 4, 5)
    bank = AdapterBank({"layer": stack, "plain": stack}, 1, {}, ("one",))
    x = torch.randn(3, 4)
    bare = {name: layer(x) for name, layer in model.items()}
    delta = 2 * x @ (stack.b[0] @ stack.a[0]).T
    merged_model = merge(model, bank.to_adapter(torch.ones(1), "deltas"))
    for name, layer in model.items():
        torch.testing.assert_close(layer(x), bare[name] + delta)
    merged_model.unmerge()
    assert model["layer"] is quantised
    assert model["plain"].weight is plain
