"""Adapters on every causal language model of transformers: merged and mixed they are what their definition says."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, AdapterBank, dimensions, inject, merge, read_adapter
from lorarec.training.scoring_model import target_layers
from tests.scoring.architectures import ARCHITECTURES, REFUSED, build

VOCABULARY, TOLERANCE, SCALE = 96, 1e-3, 1.5


def random_adapter(model: Any) -> Adapter:
    """Draw an adapter on the layers that training adapts by default."""
    generator = torch.Generator().manual_seed(2)
    tensors = {}
    for name in target_layers(model, "all-linear"):
        width, height = dimensions(model.get_submodule(name)) or (0, 0)
        a = 0.2 * torch.randn(2, width, generator=generator)
        tensors[name] = (a, 0.2 * torch.randn(height, 2, generator=generator))
    return Adapter(tensors, dict.fromkeys(tensors, SCALE))


@contextmanager
def added(model: Any, adapter: Adapter) -> Iterator[None]:
    """Reference: add the output of the adapter to that of each layer, as its definition says."""

    def hook(a: torch.Tensor, b: torch.Tensor) -> Any:
        return lambda layer, inputs, output: output + SCALE * (inputs[0] @ a.T @ b.T)

    hooks = [model.get_submodule(name).register_forward_hook(hook(*pair)) for name, pair in adapter.tensors.items()]
    yield
    for each in hooks:
        each.remove()


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in REFUSED])
def test_logits_are_those_of_the_definition(name: str) -> None:
    model = build(name, VOCABULARY).eval()
    adapter = random_adapter(model)
    ids = torch.randint(1, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(1))

    def logits() -> torch.Tensor:
        return model(input_ids=ids, use_cache=False).logits

    def largest_difference(expected: torch.Tensor) -> float:
        return float((logits() - expected).abs().max())

    before = logits()
    with added(model, adapter):
        expected = logits()
    assert (expected - before).abs().max() > 0.1
    merged = merge(model, adapter)
    assert largest_difference(expected) < TOLERANCE
    merged.unmerge()
    assert largest_difference(before) == 0
    with inject(model, AdapterBank.stack([adapter, adapter]), "deltas") as mixed:
        mixed.set_weights(torch.tensor([0.3, 0.7]))
        assert largest_difference(expected) < TOLERANCE
        mixed.set_weights(torch.tensor([[0.3, 0.7], [0.0, 0.0]]))
        if any("experts" in layer.split(".") for layer in adapter.tensors):
            with pytest.raises(LorarecError, match="it cannot have weights per row"):
                logits()
        else:
            assert largest_difference(torch.stack([expected[0], before[1]])) < TOLERANCE


@pytest.mark.parametrize(("model_type", "layer"), [("jamba", "mamba.dt_proj"), ("llama4_text", "feed_forward.router")])
def test_layers_that_are_read_in_another_way_are_refused(
    model_type: str, layer: str, tokenizer: Any, tmp_path: Any, write_adapter: Any
) -> None:
    model = build(model_type, len(tokenizer)).eval()
    folder = write_adapter(model, tmp_path / "adapter", 1, target_modules=[layer.rpartition(".")[2]])
    with pytest.raises(LorarecError, match=rf"{layer}, which backbone tiny does not have as a layer"):
        read_adapter(folder, Backbone(model, tokenizer, "tiny", "tiny"))
