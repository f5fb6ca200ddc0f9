"""One pass over a tree gives the scores of one candidate at a time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import posterior, score, score_batch

TITLES = ["red lamp", "small old chair", "big blue puzzle game", "novel", "green guide to a new white table", "brush"]


def one_by_one(
    backbone: Backbone, prompt: list[int], branches: Sequence[list[int]], builder: PromptBuilder
) -> list[float]:
    """Reference: a plain causal forward pass of the whole model for each candidate."""
    scores = []
    for branch in branches:
        logits = backbone.model(input_ids=torch.tensor([prompt + branch])).logits[0].log_softmax(-1)
        if builder.readout == "verdict":
            yes, no = builder.yes_no
            scores.append((logits[-1, yes] - logits[-1, no]).item())
        else:
            start = len(prompt) - 1
            scores.append(sum(logits[start + i, token].item() for i, token in enumerate(branch)))
    return scores


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
def test_one_pass_equals_one_by_one(any_backbone: Backbone, readout: str) -> None:
    builder = PromptBuilder(any_backbone.tokenizer, readout)
    example = builder.example(TITLES[:3], TITLES)
    with torch.no_grad():
        found = score_batch(any_backbone.model, [example], builder)[0]
        expected = one_by_one(any_backbone, example.prompt, example.branches, builder)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    assert np.std(expected) > 0.01


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
def test_batch_and_chunks_equal_single(any_backbone: Backbone, readout: str) -> None:
    builder = PromptBuilder(any_backbone.tokenizer, readout)
    examples = [builder.example(TITLES[:n], TITLES[: 6 - n]) for n in range(4)]
    single = [score(any_backbone.model, [example], builder)[0] for example in examples]
    for budget in (10_000, 120, 70, 1):
        for separate, batched in zip(single, score(any_backbone.model, examples, builder, budget), strict=True):
            np.testing.assert_allclose(separate, batched, atol=1e-4)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(len(TITLES))))
def test_scores_follow_their_candidates(tiny_backbone: Backbone, order: list[int]) -> None:
    builder = PromptBuilder(tiny_backbone.tokenizer)
    straight = score(tiny_backbone.model, [builder.example(TITLES[:2], TITLES)], builder)[0]
    shuffled = score(tiny_backbone.model, [builder.example(TITLES[:2], [TITLES[i] for i in order])], builder)[0]
    np.testing.assert_allclose(straight[order], shuffled, atol=1e-4)


def test_gradients_reach_the_weights_through_vocabulary_chunks(tiny_backbone: Backbone) -> None:
    """More than one chunk of positions: recomputed projections give the gradients of one big projection."""
    builder = PromptBuilder(tiny_backbone.tokenizer, "likelihood")
    examples = [builder.example(TITLES, TITLES)] * 12
    weight = tiny_backbone.model.get_output_embeddings().weight
    torch.stack([s.logsumexp(0) for s in score_batch(tiny_backbone.model, examples, builder)]).mean().backward()
    many = weight.grad.clone()
    weight.grad = None
    score_batch(tiny_backbone.model, examples[:1], builder)[0].logsumexp(0).backward()
    torch.testing.assert_close(many, weight.grad, atol=1e-4, rtol=1e-3)


def test_thousand_candidates_on_a_cached_prompt(tiny_backbone: Backbone) -> None:
    builder = PromptBuilder(tiny_backbone.tokenizer)
    titles = [f"{TITLES[i % 6]} {i}" for i in range(1000)]
    example = builder.example(TITLES, titles)
    chunked = score(tiny_backbone.model, [example], builder, token_budget=512)[0]
    few = score(tiny_backbone.model, [builder.example(TITLES, titles[500:510])], builder)[0]
    np.testing.assert_allclose(chunked[500:510], few, atol=1e-4)


def test_threads_share_a_model(any_backbone: Backbone) -> None:
    """Parts of the model are replaced for a moment, which must not affect other threads."""
    builder = PromptBuilder(any_backbone.tokenizer)
    examples = [builder.example(TITLES[: 1 + n % 4], TITLES) for n in range(40)]
    expected = [score(any_backbone.model, [example], builder)[0] for example in examples]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda example: score(any_backbone.model, [example], builder)[0], examples))
    np.testing.assert_allclose(np.stack(found), np.stack(expected), atol=1e-4)


def test_a_model_in_training_mode_stays_so_when_scoring_fails(tiny_backbone: Backbone) -> None:
    builder = PromptBuilder(tiny_backbone.tokenizer)
    tiny_backbone.model.train()
    with pytest.raises(LorarecError, match="is defined on 512 tokens"):
        score(tiny_backbone.model, [Example([1] * 600, [[2]])], builder)
    assert tiny_backbone.model.training


def test_posterior_is_a_distribution() -> None:
    np.testing.assert_allclose(posterior(np.array([1000.0, 1000.0, -1000.0])), [0.5, 0.5, 0.0])
