"""Every causal language model of transformers is trained by the gradient of its candidates scored one by one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraModel
from transformers import PreTrainedTokenizerFast

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, dimensions, linear_layers
from lorarec.personal import meta_loras
from lorarec.prompts import Example, PromptBuilder
from lorarec.training import TrainingConfig, train
from lorarec.training.losses import listwise
from lorarec.training.scoring_model import ScoringModel, adapted, target_layers
from tests.factories import hot_backbone
from tests.scoring.architectures import ARCHITECTURES, REFUSED, build, one_by_one_verdict

TARGETS = [1, 0]


def _gradients(model: ScoringModel) -> dict[str, torch.Tensor]:
    """Return the gradients of the adapter's weights, and remove them."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    found = {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in weights.items()}
    model.zero_grad()
    return found


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in REFUSED])
def test_gradients_are_those_of_one_candidate_at_a_time(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    base: Any = build(name, len(tokenizer)).eval()
    backbone, builder = Backbone(base, tokenizer, name, name), PromptBuilder(tokenizer)
    settings = base.config.to_dict()
    # Short enough for the few positions of some models.
    examples = [Example([5, 6, 7, 8], [[9, 10], [11]]), Example([12, 13, 14], [[15], [16, 17, 18]])]
    with adapted(backbone, builder, TrainingConfig(r=2, lora_dropout=0.0)) as model:
        generator = torch.Generator().manual_seed(3)
        for weight_name, weight in model.named_parameters():
            if "lora_B" in weight_name:
                weight.data = 0.05 * torch.randn(weight.shape, generator=generator)
        listwise(model(examples), TARGETS).backward()
        found = _gradients(model)
        for module in model.modules():
            vars(module).pop("forward", None)  # PEFT's own
        scores = [one_by_one_verdict(base, each.prompt, each.branches, *builder.yes_no) for each in examples]
        torch.stack([-s.log_softmax(0)[target] for s, target in zip(scores, TARGETS, strict=True)]).sum().backward()
        expected = _gradients(model)
    largest = max(float(each.abs().max()) for each in expected.values())
    assert largest > 1e-3
    for weight_name, each in expected.items():
        torch.testing.assert_close(found[weight_name], each, atol=1e-3 * largest, rtol=1e-3)
    assert base.config.to_dict() == settings


@pytest.mark.parametrize(
    "name", ["bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "mamba", "mamba2", "nemotron_h", "zamba2"]
)
def test_layers_whose_weights_kernels_read_are_not_adapted(name: str) -> None:
    """On a GPU with the kernels of these models, training would not call the layer."""
    model = build(name, 96)
    assert not {each.rpartition(".")[2] for each in target_layers(model, "all-linear")} & {"out_proj", "dt_proj"}
    with pytest.raises(LorarecError, match="an adapter on out_proj: no linear layer that the model calls in training"):
        target_layers(model, "out_proj")


def test_an_adapter_on_such_layers_is_not_trained_further(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build("bamba", len(tokenizer)).eval()
    name = next(name for name in linear_layers(model) if name.endswith("mamba.out_proj"))
    width, height = dimensions(model.get_submodule(name)) or (0, 0)
    start = Adapter({name: (torch.ones(2, width), torch.ones(height, 2))}, {name: 1.0})
    context = adapted(Backbone(model, tokenizer, "me", "me"), PromptBuilder(tokenizer), TrainingConfig(), start)
    with pytest.raises(LorarecError, match=r"cannot be trained further: it is on .*mamba.out_proj"), context:
        pass


def test_a_model_is_as_before_where_peft_fails_on_a_layer(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("llama", len(tokenizer)).eval()
    layers, make = dict(model.named_modules()), LoraModel._create_new_module

    def fail(config: Any, adapter: str, layer: torch.nn.Module, **options: Any) -> torch.nn.Module:
        if layer is layers["model.layers.1.mlp.up_proj"]:
            raise ValueError("this layer is not supported")
        return make(config, adapter, layer, **options)

    monkeypatch.setattr(LoraModel, "_create_new_module", staticmethod(fail))
    context = adapted(Backbone(model, tokenizer, "me", "me"), PromptBuilder(tokenizer), TrainingConfig())
    with pytest.raises(LorarecError, match="cannot put an adapter on all-linear: this layer is not supported"), context:
        pass
    assert dict(model.named_modules()) == layers


@pytest.mark.parametrize("name", ["gemma3", "gemma4", "got_ocr2"])
def test_only_layers_of_text_are_adapted(name: str) -> None:
    model = build(name, 96)
    trained, meta = target_layers(model, "all-linear"), list(meta_loras(model).layers)
    assert {each.rpartition(".")[2] for each in trained} >= {"q_proj", "down_proj"}
    assert all("language_model" in each.split(".") for each in trained + meta)
    assert set(meta) == set(target_layers(model, "q_proj, v_proj"))


def test_a_run_leaves_a_configuration_of_several_modalities_as_it_was(
    shop: tuple[Dataset, Split], tmp_path: Path
) -> None:
    """The configuration of Gemma 3 holds `use_cache` in that of its text model."""
    tokenizer = hot_backbone().tokenizer
    model = build("gemma3", len(tokenizer))
    settings = model.config.to_dict()
    config = TrainingConfig(samples=8, batch_size=4, negatives=3, epochs=1, r=2, learning_rate=1e-2, eval_users=0)
    adapter = train(Backbone(model, tokenizer, "tiny", "tiny"), [shop], tmp_path / "adapter", config)
    assert not adapter.is_zero
    assert model.config.to_dict() == settings
    assert not hasattr(model.config, "use_cache")
