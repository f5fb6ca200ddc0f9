"""Mixtures that differ from row to row of a batch are the same mixtures one prompt at a time, whatever the plan."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lorarec.backbone import Backbone
from lorarec.lora import AdapterBank, inject, read_adapter
from lorarec.prompts import PromptBuilder
from lorarec.scoring import score_batch
from tests.factories import make_backbone

TITLES = ["red lamp", "small old chair", "big blue puzzle game", "novel", "brush"]


@pytest.fixture
def opt(tokenizer: PreTrainedTokenizerFast) -> Backbone:
    """OPT flattens its rows before the feed-forward layers."""
    return make_backbone("opt", tokenizer)


def mixtures_equal_one_prompt_at_a_time(
    backbone: Backbone, folder: Path, write_adapter: Callable[..., Path], readout: str
) -> None:
    adapters = [read_adapter(write_adapter(backbone.model, folder / str(seed), seed)) for seed in (1, 2)]
    builder = PromptBuilder(backbone.tokenizer, readout)
    examples = [builder.example(TITLES[:n], TITLES[: 6 - n]) for n in (1, 3, 2)]
    weights = torch.tensor([[1.0, 0.0], [0.2, 0.8], [0.5, 0.5]])
    with inject(backbone.model, AdapterBank.stack(adapters), "deltas") as mixed:
        for gradients in (False, True):
            with torch.set_grad_enabled(gradients):
                mixed.set_weights(weights)
                together = score_batch(backbone.model, examples, builder)
                for row, example in enumerate(examples):
                    mixed.set_weights(weights[row])
                    separate = score_batch(backbone.model, [example], builder)[0]
                    torch.testing.assert_close(together[row], separate, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
def test_any_plan(any_backbone: Backbone, tmp_path: Path, write_adapter: Callable[..., Path], readout: str) -> None:
    mixtures_equal_one_prompt_at_a_time(any_backbone, tmp_path, write_adapter, readout)


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
def test_activations_beyond_the_budget_are_recomputed(
    any_backbone: Backbone, tmp_path: Path, write_adapter: Callable[..., Path], readout: str
) -> None:
    """Gradients of weights per row do not depend on the budget."""
    adapters = [read_adapter(write_adapter(any_backbone.model, tmp_path / str(seed), seed)) for seed in (1, 2)]
    builder = PromptBuilder(any_backbone.tokenizer, readout)
    examples = [builder.example(TITLES[:n], TITLES[: 6 - n]) for n in (1, 3)]
    gradients = []
    with inject(any_backbone.model, AdapterBank.stack(adapters), "deltas") as mixed:
        for budget in (100_000, 150):
            weights = torch.tensor([[0.9, 0.1], [0.2, 0.8]], requires_grad=True)
            mixed.set_weights(weights)
            scores = score_batch(any_backbone.model, examples, builder, budget)
            torch.stack([each.logsumexp(0) for each in scores]).sum().backward()
            gradients.append(weights.grad)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
    assert gradients[0].abs().max() > 1e-3


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
def test_a_model_that_flattens_rows(
    opt: Backbone, tmp_path: Path, write_adapter: Callable[..., Path], readout: str
) -> None:
    mixtures_equal_one_prompt_at_a_time(opt, tmp_path, write_adapter, readout)
