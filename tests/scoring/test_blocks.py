"""Attention in blocks gives what the dense mask of the tree gives."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lorarec.prompts import Example
from lorarec.scoring import blocks, branch_scores
from lorarec.training.losses import listwise

from .architectures import build

VOCABULARY = 200
YES_NO = (5, 6)
#: Full attention, sliding windows, chunks, several kinds of layers, and keys that are wider than values.
NAMES = ["llama", "gpt2", "mistral", "qwen2 (window)", "llama4_text", "gemma3_text", "deepseek_v3"]


def _examples(lengths: Sequence[int] = (40, 33, 1)) -> list[Example]:
    generator = torch.Generator().manual_seed(3)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (count,), generator=generator).tolist()

    return [Example(tokens(length), [tokens(count) for count in (4, 1, 9, 2, 6, 3)]) for length in lengths]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of queries of each block."""
    monkeypatch.setattr(blocks, "GROUP_TOKENS", 5)
    recorded: list[int] = []
    attend = blocks._attend

    def recording(original: Any, module: Any, row: blocks.RowBlocks, *rest: Any) -> torch.Tensor:
        recorded.extend(row.sizes)
        return attend(original, module, row, *rest)

    monkeypatch.setattr(blocks, "_attend", recording)
    return recorded


def _run(model: Any, examples: list[Example], readout: str) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    scores = branch_scores(model, examples, readout, YES_NO)
    listwise(scores, [1] * len(scores)).backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad(set_to_none=True)
    return [each.detach() for each in scores], gradients


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
@pytest.mark.parametrize("name", NAMES)
def test_scores_and_gradients_are_those_of_the_dense_mask(
    name: str, readout: str, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, examples = build(name, VOCABULARY), _examples()
    scores, gradients = _run(model, examples, readout)
    assert calls[:6] == [40, 5, 9, 8, 3, 0]  # prompt, groups of at least five tokens, padding
    calls.clear()
    monkeypatch.setattr("lorarec.scoring.tree.divide", lambda *_: None)
    expected, expected_gradients = _run(model, examples, readout)
    assert not calls
    for found, wanted in zip(scores, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    largest = max(float(gradient.abs().max()) for gradient in expected_gradients.values())
    for weight, wanted in expected_gradients.items():
        torch.testing.assert_close(gradients[weight], wanted, atol=1e-4 * largest, rtol=0, msg=weight)


def test_branches_after_a_cached_prompt_are_blocks_too(calls: list[int]) -> None:
    model, [example, *_] = build("mistral", VOCABULARY), _examples()
    with torch.no_grad():
        [whole] = branch_scores(model, [example], "verdict", YES_NO)
        calls.clear()
        [chunked] = branch_scores(model, [example], "verdict", YES_NO, token_budget=52)
    torch.testing.assert_close(chunked, whole, atol=1e-4, rtol=0)
    layers = model.config.num_hidden_layers
    # The prompt is read first, then chunks of at most 12 tokens.
    assert calls == [*[40, 0] * layers, *[40, 5, 0] * layers, *[40, 9, 2, 0] * layers, *[40, 6, 3, 0] * layers]


def test_gradient_checkpointing_computes_the_same_blocks(calls: list[int]) -> None:
    model, examples = build("llama", VOCABULARY).train(), _examples()
    _, expected = _run(model, examples, "verdict")
    once = len(calls)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    calls.clear()
    _, gradients = _run(model, examples, "verdict")
    assert len(calls) == 2 * once
    for weight, wanted in expected.items():
        torch.testing.assert_close(gradients[weight], wanted)


def test_sequences_without_branches_are_read_as_before(calls: list[int]) -> None:
    """Outside of scoring, transformers' attention function is the original one."""
    model = build("llama", VOCABULARY)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert not calls
