"""Every causal language model of transformers is scored as one candidate at a time, or refused by name."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lorarec.errors import LorarecError
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import TREE, check_scoring, plan_for, score, score_and_cache, score_batch, score_cached
from lorarec.training.losses import listwise

from .architectures import ARCHITECTURES, REFUSED, build, one_by_one_likelihood, one_by_one_verdict

TOLERANCE = 1e-4
TARGETS = [1, 4]


@pytest.fixture(autouse=True)
def _several_groups_of_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the attention blocks of these short branches be several."""
    monkeypatch.setattr("lorarec.scoring.blocks.GROUP_TOKENS", 8)


def _examples(vocabulary: int, lengths: Sequence[int] = (61, 74, 45)) -> list[Example]:
    """Three prompts of unequal length, longer than every window, with branches of 1 to 9 tokens, two of them equal."""
    generator = torch.Generator().manual_seed(7)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, vocabulary, (count,), generator=generator).tolist()

    return [Example(tokens(length), [tokens(count) for count in (1, 9, 3, 5, 3)]) for length in lengths]


def _fitting(model: PreTrainedModel, builder: PromptBuilder) -> list[Example]:
    """Examples within the positions that the model is defined on; longer ones are refused by name."""
    vocabulary, examples = len(builder.tokenizer), _examples(len(builder.tokenizer))
    limit = plan_for(model).max_positions
    if limit is None or limit >= 74 + 9:
        return examples
    with pytest.raises(LorarecError, match=rf"{model.config.model_type}.* is defined on {limit} tokens"):
        score(model, examples, builder)
    return _examples(vocabulary, [limit - 9, limit - 11, max(limit - 14, 1)])


def _one_by_one(model: PreTrainedModel, example: Example, builder: PromptBuilder) -> torch.Tensor:
    if builder.readout == "verdict":
        return one_by_one_verdict(model, example.prompt, example.branches, *builder.yes_no)
    return one_by_one_likelihood(model, example.prompt, example.branches)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_check_of_scoring(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    model = build(name, len(tokenizer))
    if name in REFUSED:
        with pytest.raises(LorarecError, match=model.config.model_type):
            check_scoring(model)
    else:
        assert check_scoring(model).exact


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_equal_one_by_one(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """Prompts are scored by themselves, in chunks, in the reverse order, and after they were cached."""
    model, builder = build(name, len(tokenizer)), PromptBuilder(tokenizer, "likelihood")
    if name in REFUSED:
        with pytest.raises(LorarecError, match=model.config.model_type):
            score(model, _examples(len(tokenizer)), builder)
        return
    examples = _fitting(model, builder)
    with torch.no_grad():
        expected = [_one_by_one(model, example, builder).numpy() for example in examples]
    assert min(np.ptp(scores) for scores in expected) > 100 * TOLERANCE
    backwards = [Example(example.prompt, example.branches[::-1]) for example in examples]
    found = {
        "alone": score(model, examples, builder, token_budget=max(example.length for example in examples)),
        "chunks": score(model, examples, builder, token_budget=min(example.length for example in examples) // 2),
        "reversed": [scores[::-1] for scores in score(model, backwards, builder)],
    }
    if plan_for(model).kind == TREE:
        _, prompts = score_and_cache(model, [Example(each.prompt, each.branches[:2]) for each in examples], builder)
        found["cached"] = [each.numpy() for each in score_cached(model, examples, prompts, builder)]
    for way, scores in found.items():
        for row, wanted in zip(scores, expected, strict=True):
            np.testing.assert_allclose(row, wanted, atol=TOLERANCE, rtol=0, err_msg=way)


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_equal_one_by_one(name: str, readout: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """A batch has the scores of one candidate at a time, and its listwise loss their gradients, for every weight."""
    model, builder = build(name, len(tokenizer)), PromptBuilder(tokenizer, readout)
    if name in REFUSED:
        with pytest.raises(LorarecError, match=model.config.model_type):
            score_batch(model, _examples(len(tokenizer)), builder)
        return
    examples = _fitting(model, builder)[:2]
    wanted_scores = [_one_by_one(model, example, builder) for example in examples]
    assert min(np.ptp(scores.detach().numpy()) for scores in wanted_scores) > 100 * TOLERANCE
    listwise(wanted_scores, TARGETS).backward()
    wanted_gradients = _take_gradients(model)
    scores = score_batch(model, examples, builder)
    listwise(scores, TARGETS).backward()
    gradients = _take_gradients(model)
    for found, wanted in zip(scores, wanted_scores, strict=True):
        torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)
    largest = max(gradient.abs().max().item() for gradient in wanted_gradients.values())
    assert gradients.keys() == wanted_gradients.keys()
    for weight, wanted in wanted_gradients.items():
        np.testing.assert_allclose(gradients[weight], wanted, atol=10 * TOLERANCE * largest, rtol=0, err_msg=weight)


def _take_gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad(set_to_none=True)
    return gradients
