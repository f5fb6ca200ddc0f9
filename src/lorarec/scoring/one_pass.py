"""Scores of many candidates of a prompt in one pass, equal to those of scoring each candidate alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from lorarec.errors import LorarecError
from lorarec.prompts import READOUTS, Example, PromptBuilder
from lorarec.scoring.batches import TOKEN_BUDGET, evaluation_mode, map_batches, pad_rows, tokens_per_pass
from lorarec.scoring.cached_prompts import CachedPrompt, read_branches, read_examples
from lorarec.scoring.plan import TREE, model_name, plan_for
from lorarec.scoring.readout import read_scores
from lorarec.scoring.state import SequenceState, continues_from_state, rows_of
from lorarec.scoring.tree import PROMPT, pack, tree_pass

#: What to do about scores that are NaN or infinite, for messages.
NOT_FINITE = "load the model in float32 or bfloat16, or train the adapter with a lower learning_rate"


def score_batch(
    model: Any, examples: Sequence[Example], builder: PromptBuilder, token_budget: int = TOKEN_BUDGET
) -> list[torch.Tensor]:
    """Score all candidates of a batch of prompts; differentiable.

    The scores are those of scoring the candidates one by one. If tokens interact only by attention, this takes one
    forward pass, in which a branch attends to the prompt and itself, at the positions that it would have alone. Other
    models read a prompt once and its branches as a batch that continues from its state or, if gradients are needed,
    every candidate with a prompt of its own (see `plan_for`).

    Args:
        model: A Hugging Face causal LM, with or without LoRA layers injected by PEFT.
        examples: Prompts with their branches.
        builder: The builder of the prompts, whose readout is used.
        token_budget: Number of tokens of a forward pass, padding included. A prompt whose branches exceed it is read
            once, and its branches continue from the cached prompt in chunks. With gradients, it bounds the number of
            tokens whose activations are stored.

    Returns:
        A tensor (candidates,) for each example, float32: log-odds (`verdict`) or log-probabilities (`likelihood`).

    Raises:
        LorarecError: No plan is exact for the model, or a prompt is longer than the model is defined on.
    """
    return branch_scores(model, examples, builder.readout, builder.yes_no, token_budget)


def branch_scores(
    model: Any,
    examples: Sequence[Example],
    readout: str,
    yes_no: tuple[int, int],
    token_budget: int = TOKEN_BUDGET,
) -> list[torch.Tensor]:
    """Score as `score_batch` does, given the readout and the token ids of yes and no instead of a builder."""
    return _score_distinct(
        model, examples, lambda distinct: _branch_scores(model, distinct, readout, yes_no, token_budget)
    )


@torch.no_grad()
def score_and_cache(
    model: Any, examples: Sequence[Example], builder: PromptBuilder
) -> tuple[list[torch.Tensor], list[CachedPrompt]]:
    """Score as `score_batch` does in one pass, and keep the prompts for `score_cached`.

    The keys and values of the prompts are computed in any pass, so keeping them costs a copy.

    Args:
        model: A Hugging Face causal LM whose plan is `tree`, in evaluation mode.
        examples: Prompts with their branches.
        builder: The builder of the prompts, whose readout is used.

    Returns:
        A tensor (candidates,) for each example, float32, and the read prompt of each example.

    Raises:
        LorarecError: The plan of the model is not `tree`, or a prompt is longer than the model is defined on.
    """
    _require_tree(model)
    prompts: list[CachedPrompt] = []

    def read(distinct: Sequence[Example]) -> list[torch.Tensor]:
        hidden, read_prompts = read_examples(model, distinct)
        prompts.extend(read_prompts)
        return read_scores(model, hidden, distinct, builder.readout, builder.yes_no)

    return _score_distinct(model, examples, read), prompts


@torch.no_grad()
def score_cached(
    model: Any, examples: Sequence[Example], prompts: Sequence[CachedPrompt], builder: PromptBuilder
) -> list[torch.Tensor]:
    """Score the branches of prompts that the model has read before, as `score_batch` does with the whole prompts.

    Args:
        model: The model that read the prompts, with the same adapters and weights.
        examples: Prompts, which may be of different lengths, with their branches.
        prompts: The read prompt of each example, from `score_and_cache`; they are not changed.
        builder: The builder of the prompts, whose readout is used.

    Returns:
        A tensor (candidates,) for each example, float32.

    Raises:
        LorarecError: As for `score_and_cache`.
    """
    _require_tree(model)
    return _score_distinct(
        model, examples, lambda distinct: _scores_after(model, distinct, prompts, builder.readout, builder.yes_no)
    )


def _require_tree(model: Any) -> None:
    plan = plan_for(model)
    if plan.kind != TREE:
        raise LorarecError(f"{model_name(model)} cannot keep prompts for later passes: {plan.reason}")


def _score_distinct(
    model: Any, examples: Sequence[Example], score_all: Callable[[Sequence[Example]], Sequence[torch.Tensor]]
) -> list[torch.Tensor]:
    """Score examples by a function that gets each of their branches once, while no other thread uses the model.

    Equal candidates then have equal scores, although rounding depends on the position of a branch in a pass.

    Raises:
        LorarecError: A prompt is longer than the model is defined on.
    """
    check_length(model, examples)
    pairs = [_distinct(example) for example in examples]
    with plan_for(model).lock:
        scores = score_all([example for example, _ in pairs])
    return [own[numbers] for own, (_, numbers) in zip(scores, pairs, strict=True)]


def _distinct(example: Example) -> tuple[Example, list[int]]:
    """Return an example with each of its branches once, and the number of that branch for each of the given ones."""
    found: dict[tuple[int, ...], int] = {}
    numbers = [found.setdefault(tuple(branch), len(found)) for branch in example.branches]
    if len(found) == len(numbers):
        return example, numbers
    return Example(example.prompt, [list(branch) for branch in found]), numbers


def _branch_scores(
    model: Any, examples: Sequence[Example], readout: str, yes_no: tuple[int, int], token_budget: int
) -> list[torch.Tensor]:
    plan = plan_for(model)
    if plan.kind == TREE and len(examples) == 1 and examples[0].length > token_budget and not torch.is_grad_enabled():
        return [_score_chunked(model, examples[0], readout, yes_no, token_budget)]
    if plan.kind == TREE:
        batch = pack(examples, model.device)
        return read_scores(model, tree_pass(model, batch.input_ids, batch.tree), examples, readout, yes_no)
    cached = continues_from_state(model)
    recompute = torch.is_grad_enabled() and sum(map(_tokens_of_rows, examples)) > token_budget
    scores = []
    for row, example in enumerate(examples):
        if cached:
            hidden = _states_from_prefix(model, example, row, token_budget)
        else:
            hidden = _states_of_rows(model, example, row, token_budget, recompute)
        scores += read_scores(model, hidden, _after_prompt([example]), readout, yes_no)
    return scores


def rows_scores(model: Any, example: Example, yes_no: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Return the scores of the branches by readout, from a batch of sequences of the prompt and one branch each."""
    hidden = _states_of_rows(model, example, 0, TOKEN_BUDGET, recompute=False)
    after = _after_prompt([example])
    return {readout: read_scores(model, hidden, after, readout, yes_no)[0] for readout in READOUTS}


def check_length(model: Any, examples: Sequence[Example]) -> None:
    """Check that every prompt with its longest branch fits the model.

    Raises:
        LorarecError: A prompt is longer than the model is defined on.
    """
    limit = plan_for(model).max_positions
    longest = max(len(example.prompt) + max(map(len, example.branches)) for example in examples)
    if limit is not None and longest > limit:
        raise LorarecError(
            f"{model_name(model)} is defined on {limit} tokens, and this prompt has {longest}: set max_tokens to "
            f"{limit} or less"
        )


def _states_from_prefix(model: Any, example: Example, row: int, token_budget: int) -> torch.Tensor:
    """Return the hidden states (1, 1 + branch tokens, d) of the last prompt token and of all branches in turn."""
    state = SequenceState(model)
    with rows_of(model, [row]):
        last = state.read(torch.tensor([example.prompt], device=model.device))[0, -1:]

    def read(batch: list[int]) -> list[torch.Tensor]:
        ids = pad_rows([example.branches[place] for place in batch], model.device)
        with rows_of(model, [row] * len(batch)):
            hidden = state.repeated(len(batch)).read(ids)
        return [states[: len(example.branches[place])] for place, states in zip(batch, hidden, strict=True)]

    lengths = [len(example.prompt) + len(branch) for branch in example.branches]
    return torch.cat([last, *map_batches(read, lengths, token_budget)])[None]


def _tokens_of_rows(example: Example) -> int:
    return len(example.branches) * len(example.prompt) + sum(map(len, example.branches))


def _states_of_rows(model: Any, example: Example, row: int, token_budget: int, recompute: bool) -> torch.Tensor:
    """Return hidden states as `_states_from_prefix` does, from sequences of the prompt and one branch each.

    Args:
        model: A Hugging Face causal LM.
        example: The prompt and its branches.
        row: The row of the batch whose settings the model uses (see `RowModule`).
        token_budget: Number of tokens of a forward pass, padding included.
        recompute: Whether each pass is computed again in the backward pass, so that only its activations are stored.
    """

    def read(ids: torch.Tensor) -> torch.Tensor:
        with rows_of(model, [row] * len(ids)):
            # Padding is on the right, so that no other token attends to it.
            hidden: torch.Tensor = plan_for(model).trunk(input_ids=ids, use_cache=False).last_hidden_state
        return hidden

    start = len(example.prompt)
    lengths = [start + len(branch) for branch in example.branches]

    def read_batch(batch: list[int]) -> list[torch.Tensor]:
        ids = pad_rows([example.prompt + example.branches[place] for place in batch], model.device)
        hidden = checkpoint(read, ids, use_reentrant=False) if recompute else read(ids)
        return [states[start - 1 : lengths[place]] for place, states in zip(batch, hidden, strict=True)]

    rows = map_batches(read_batch, lengths, token_budget)
    return torch.cat([rows[0][:1], *(states[1:] for states in rows)])[None]


@torch.no_grad()
def score(
    model: Any,
    examples: Sequence[Example],
    builder: PromptBuilder,
    token_budget: int | None = None,
    progress: bool = False,
) -> list[np.ndarray]:
    """Score many prompts, in batches of at most `token_budget` tokens; results depend on the budget only by rounding.

    Args:
        model: A Hugging Face causal LM, which is put into evaluation mode meanwhile.
        examples: Prompts with their branches.
        builder: The builder of the prompts, whose readout is used.
        token_budget: Number of tokens of a forward pass, padding included; None for 2,048 on a CPU and 8,192 on other
            devices.
        progress: Whether a progress bar is shown on stderr.

    Returns:
        An array (candidates,) for each example, float32, in the order given.

    Raises:
        LorarecError: As for `score_batch`.

    Examples:
        >>> from lorarec import Backbone
        >>> from lorarec.prompts import PromptBuilder
        >>> from lorarec.scoring import score
        >>> backbone = Backbone.from_pretrained("embedded")
        >>> builder = PromptBuilder(backbone.tokenizer)
        >>> example = builder.example(["Toy Story", "Antz"], ["A Bug's Life", "Heat"])
        >>> [scores] = score(backbone.model, [example], builder)
        >>> scores.shape
        (2,)
    """
    budget = tokens_per_pass(model, token_budget)

    def read(batch: list[int]) -> list[np.ndarray]:
        scores = score_batch(model, [examples[index] for index in batch], builder, budget)
        return scores_to_numpy(scores)

    with evaluation_mode(model):
        return map_batches(read, [example.length for example in examples], budget, "Scoring", progress)


def scores_to_numpy(scores: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Return the scores (candidates,) of each example as float32 arrays, by a single copy from the device.

    Examples:
        >>> scores_to_numpy([torch.tensor([1.0, 2.0]), torch.tensor([3.0])])
        [array([1., 2.], dtype=float32), array([3.], dtype=float32)]
    """
    together = torch.cat(list(scores)).float().cpu().numpy()
    return np.split(together, np.cumsum([len(each) for each in scores])[:-1])


def require_finite(scores: list[np.ndarray]) -> list[np.ndarray]:
    """Return the scores (candidates,) of each example if all are finite: there is no order by NaN.

    Raises:
        LorarecError: A score is NaN or infinite, as in float16 beyond 65,504.
    """
    if not all(np.isfinite(each).all() for each in scores):
        raise LorarecError(f"a score is NaN or infinite: {NOT_FINITE}")
    return scores


def _score_chunked(model: Any, example: Example, readout: str, yes_no: tuple[int, int], budget: int) -> torch.Tensor:
    """Score one prompt's branches chunk by chunk on the prompt's cached keys and values."""
    _, prompts = read_examples(model, [Example(example.prompt, [])])
    scores = []
    for branches in _chunks(example.branches, max(1, budget - len(example.prompt))):
        scores += _scores_after(model, [Example(example.prompt, branches)], prompts, readout, yes_no)
    return torch.cat(scores)


def _scores_after(
    model: Any, examples: Sequence[Example], prompts: Sequence[CachedPrompt], readout: str, yes_no: tuple[int, int]
) -> list[torch.Tensor]:
    """Score the branches of prompts that have been read."""
    hidden = read_branches(model, examples, prompts)
    return read_scores(model, hidden, _after_prompt(examples), readout, yes_no)


def _after_prompt(examples: Sequence[Example]) -> list[Example]:
    """Return examples with one token in place of the prompt: its hidden state predicts every branch's first token."""
    return [Example([PROMPT], example.branches) for example in examples]


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


def posterior(scores: np.ndarray) -> np.ndarray:
    """Return the probabilities (candidates,) of a candidate set: the softmax of its scores (candidates,)."""
    shifted = np.exp(scores - scores.max())
    return shifted / shifted.sum()
