"""One pass over a prompt and all its candidate branches."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from rich.progress import track
from transformers import DynamicCache

from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring.layout import PROMPT, additive, pack
from lorarec.scoring.readout import read_scores


def trunk(model: Any) -> Any:
    """The causal LM without its vocabulary projection."""
    return model.base_model


def score_batch(model: Any, examples: Sequence[Example], builder: PromptBuilder) -> list[torch.Tensor]:
    """Score all candidates of a batch of prompts in one forward pass; differentiable.

    A branch sees the prompt and itself, at the positions it would have alone, so the scores are those of scoring the
    candidates one by one.

    Args:
        model: a Hugging Face causal LM, with or without LoRA layers injected by PEFT.
        examples: prompts with their branches.
        builder: what built them; says the readout.

    Returns:
        One (candidates,) float32 tensor per example: log-odds (`verdict`) or log-probabilities (`likelihood`).
    """
    batch = pack(examples, model.device)
    hidden = trunk(model)(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask(model.dtype),
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    return read_scores(model, hidden, examples, builder.readout, builder.yes_no)


@torch.no_grad()
def score(
    model: Any,
    examples: Sequence[Example],
    builder: PromptBuilder,
    token_budget: int = 8192,
    progress: bool = False,
) -> list[np.ndarray]:
    """Score many prompts, longest first, in batches of at most `token_budget` padded tokens.

    A prompt whose branches exceed the budget alone is prefilled once and its branches are scored in chunks on the
    cached prompt. Results do not depend on the budget (up to float rounding).

    Returns:
        One (candidates,) float32 array per example, in the order given.
    """
    results: list[np.ndarray] = [np.empty(0, np.float32)] * len(examples)
    was_training = model.training
    model.eval()
    batches = list(token_batches([example.length for example in examples], token_budget))
    for indices in track(batches, "Scoring", disable=not progress, transient=True):
        chosen = [examples[i] for i in indices]
        if chosen[0].length > token_budget:
            scores = [_score_chunked(model, chosen[0], builder, token_budget)]
        else:
            scores = score_batch(model, chosen, builder)
        for index, values in zip(indices, scores, strict=True):
            results[index] = values.float().cpu().numpy()
    model.train(was_training)
    return results


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices, longest first, in batches of at most `budget` padded tokens; a longer row goes alone."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


def _score_chunked(model: Any, example: Example, builder: PromptBuilder, budget: int) -> torch.Tensor:
    """Score one prompt's branches chunk by chunk on the prompt's cached keys and values."""
    cache = DynamicCache()
    prompt = torch.tensor([example.prompt], device=model.device)
    prefix = trunk(model)(input_ids=prompt, past_key_values=cache, use_cache=True).last_hidden_state[:, -1:]
    scores = []
    for branches in _chunks(example.branches, max(1, budget - len(example.prompt))):
        scores.append(_score_on_cache(model, cache, prefix, len(example.prompt), branches, builder))
        cache.crop(-sum(map(len, branches)))
    return torch.cat(scores)


def _chunks(branches: Sequence[list[int]], budget: int) -> Iterator[list[list[int]]]:
    chunk: list[list[int]] = []
    used = 0
    for branch in branches:
        if chunk and used + len(branch) > budget:
            yield chunk
            chunk, used = [], 0
        chunk.append(branch)
        used += len(branch)
    yield chunk


def _score_on_cache(
    model: Any,
    cache: DynamicCache,
    prefix: torch.Tensor,
    prompt: int,
    branches: list[list[int]],
    builder: PromptBuilder,
) -> torch.Tensor:
    batch = pack([Example([], branches)], model.device)
    segments = batch.segment_ids[0]
    own = (segments[:, None] == segments[None, :]).tril()
    allowed = torch.cat([own.new_ones(len(segments), prompt), own], dim=1)
    hidden = trunk(model)(
        input_ids=batch.input_ids,
        attention_mask=additive(allowed[None, None], model.dtype),
        position_ids=batch.position_ids + prompt,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    # One stand-in prompt token carries the hidden state that predicts every branch's first token.
    stand_in = Example([PROMPT], branches)
    return read_scores(model, torch.cat([prefix, hidden], 1), [stand_in], builder.readout, builder.yes_no)[0]


def posterior(scores: np.ndarray) -> np.ndarray:
    """The exact distribution over a candidate set: softmax of its scores (candidates,)."""
    shifted = np.exp(scores - scores.max())
    return shifted / shifted.sum()
