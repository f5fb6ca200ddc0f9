"""Branches that continue from a cached prompt have the scores that they have with the whole prompt."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.lora import AdapterBank, inject, read_adapter
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import blocks, score_and_cache, score_batch, score_cached

from .architectures import build

TOLERANCE = 1e-4
#: Full attention, sliding windows and chunks shorter than the prompts, several kinds of layers, keys that are wider
#: than values, and layers that use the keys of others.
NAMES = [
    *["llama", "qwen3", "gpt2", "opt", "mistral", "qwen2 (window)", "llama4_text", "gemma3_text", "gpt_oss"],
    *["deepseek_v3", "gemma3n_text", "gemma4_text", "mixtral"],
]


def _examples(
    vocabulary: int, lengths: Sequence[int], counts: Sequence[int] = (4, 1, 9, 2), seed: int = 3
) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, vocabulary, (count,), generator=generator).tolist()

    return [Example(tokens(length), [tokens(count) for count in counts]) for length in lengths]


def _with_other_branches(examples: Sequence[Example], vocabulary: int) -> list[Example]:
    others = _examples(vocabulary, [1] * len(examples), (3, 7, 1, 2, 5), seed=5)
    return [Example(each.prompt, other.branches) for each, other in zip(examples, others, strict=True)]


def _close(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
@pytest.mark.parametrize("name", NAMES)
def test_other_branches_after_prompts_of_different_lengths(
    name: str, readout: str, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "GROUP_TOKENS", 5)
    model, builder = build(name, len(tokenizer)), PromptBuilder(tokenizer, readout)
    examples = _examples(len(tokenizer), (40, 57, 1, 40))
    scores, prompts = score_and_cache(model, examples, builder)
    with torch.no_grad():
        _close(scores, score_batch(model, examples, builder))
        others = _with_other_branches(examples, len(tokenizer))
        expected = score_batch(model, others, builder)
    assert min(np.ptp(each.numpy()) for each in expected) > 100 * TOLERANCE
    _close(score_cached(model, others, prompts, builder), expected)
    [alone] = score_cached(model, others[:1], prompts[:1], builder)
    _close([alone], expected[:1])


def test_branches_after_cached_prompts_are_computed_in_blocks(
    tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of different lengths leave padding between the keys of the prompts and those of the branches."""
    model, builder = tiny_backbone.model, PromptBuilder(tiny_backbone.tokenizer)
    examples = _examples(50, (20, 33))
    _, prompts = score_and_cache(model, examples, builder)
    gaps: list[int] = []
    attend = blocks._attend
    monkeypatch.setattr(blocks, "_attend", lambda f, m, row, *rest: (gaps.append(row.gap), attend(f, m, row, *rest))[1])
    score_cached(model, examples, prompts, builder)
    assert gaps == [13, 0] * model.config.num_hidden_layers


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    chosen=st.data(),
)
def test_any_batch_of_cached_prompts(
    tiny_backbone: Backbone, lengths: list[int], counts: list[int], chosen: st.DataObject
) -> None:
    """Rows are drawn from prompts of several passes, also repeatedly, and a branch may occur twice."""
    model, builder = tiny_backbone.model, PromptBuilder(tiny_backbone.tokenizer)
    examples = _examples(50, lengths, [*counts, counts[0]])
    prompts = [score_and_cache(model, [each], builder)[1][0] for each in examples]
    rows = chosen.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=6))
    drawn = [examples[row] for row in rows]
    drawn = [Example(each.prompt, [*each.branches, each.branches[0]]) for each in drawn]
    found = score_cached(model, drawn, [prompts[row] for row in rows], builder)
    with torch.no_grad():
        _close(found, score_batch(model, drawn, builder))
    assert all(each[0] == each[-1] for each in found)


def test_each_row_has_its_own_mixture(
    tiny_backbone: Backbone, tmp_path: Path, write_adapter: Callable[..., Path]
) -> None:
    adapters = [read_adapter(write_adapter(tiny_backbone.model, tmp_path / str(seed), seed)) for seed in (1, 2)]
    builder = PromptBuilder(tiny_backbone.tokenizer)
    examples = _examples(50, (20, 33, 20))
    weights = torch.tensor([[1.0, 0.0], [0.2, 0.8], [0.5, 0.5]])
    with inject(tiny_backbone.model, AdapterBank.stack(adapters), "factors") as mixed:
        mixed.set_weights(weights)
        expected, prompts = score_and_cache(tiny_backbone.model, examples, builder)
        mixed.set_weights(weights.flip(0))
        found = score_cached(tiny_backbone.model, examples[::-1], prompts[::-1], builder)
    _close(found, expected[::-1])


def test_a_cached_prompt_has_memory_of_its_own_and_is_not_changed(tiny_backbone: Backbone) -> None:
    model, builder = tiny_backbone.model, PromptBuilder(tiny_backbone.tokenizer)
    examples = _examples(50, (20, 33), (8,) * 20)
    _, prompts = score_and_cache(model, examples, builder)
    tensors = [each for prompt in prompts for pair in prompt.layers if pair for each in pair]
    assert all(each.untyped_storage().nbytes() == each.nbytes for each in tensors)
    assert sum(each.nbytes for each in tensors) == sum(
        each.nbytes - each.last_hidden.untyped_storage().nbytes() for each in prompts
    )
    before = [each.clone() for each in tensors]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: score_cached(model, examples, prompts, builder), range(20)))
    for scores in found:
        _close(scores, found[0])
    for tensor, former in zip(tensors, before, strict=True):
        torch.testing.assert_close(tensor, former, atol=0, rtol=0)


def test_models_without_a_tree_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    builder, examples = PromptBuilder(tokenizer), _examples(len(tokenizer), (5,))
    with pytest.raises(LorarecError, match=r"Lfm2ForCausalLM \(lfm2\) cannot keep prompts .* layers of type conv"):
        score_and_cache(build("lfm2", len(tokenizer)), examples, builder)
