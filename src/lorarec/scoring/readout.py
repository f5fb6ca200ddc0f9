"""Readouts: scores of candidates from hidden states."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from lorarec.prompts import Example
from lorarec.scoring.head import logits

#: Positions projected to the vocabulary at once: bounds memory at 512 x vocabulary floats (311 MB for 152k words).
CHUNK = 512


def token_log_probs(model: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities of `targets` (n,) given `hidden` (n, d) without storing n x vocabulary numbers.

    With gradients on, each chunk's projection is recomputed in the backward pass. Unlike those of yes and no, logits of
    the whole vocabulary are those that the model computes, in its data type: the log-probability of a title adds up
    many of them, so candidates do not get equal scores, and the hidden states of a model in half precision change it
    more than the rounding of the logits does.
    """

    def chunk_log_probs(states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scores = logits(model, states).float()
        return scores.gather(1, labels[:, None])[:, 0] - scores.logsumexp(1)

    pieces = []
    for states, labels in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
        if torch.is_grad_enabled() and hidden.shape[0] > CHUNK:
            pieces.append(checkpoint(chunk_log_probs, states, labels, use_reentrant=False))
        else:
            pieces.append(chunk_log_probs(states, labels))
    return torch.cat(pieces)


def verdict_scores(model: Any, hidden: torch.Tensor, yes_no: tuple[int, int]) -> torch.Tensor:
    """Return the log-odds (n,) of yes against no after hidden states (n, d)."""
    both = torch.cat([logits(model, states, yes_no).float() for states in hidden.split(CHUNK)])
    return both[:, 0] - both[:, 1]


def last_positions(example: Example) -> list[int]:
    """Return the index in the row of the last token of each branch."""
    ends, end = [], len(example.prompt) - 1
    for branch in example.branches:
        end += len(branch)
        ends.append(end)
    return ends


def predicting_positions(example: Example) -> tuple[list[int], list[int], list[int]]:
    """Return, for every token of a branch, the index that predicts it, its id, and the number of its branch.

    A branch's first token is predicted by the prompt's last, the others by the token before them.
    """
    positions, targets, owners = [], [], []
    start = len(example.prompt)
    for number, branch in enumerate(example.branches):
        positions += [len(example.prompt) - 1, *range(start, start + len(branch) - 1)]
        targets += branch
        owners += [number] * len(branch)
        start += len(branch)
    return positions, targets, owners


def read_scores(
    model: Any, hidden: torch.Tensor, examples: Sequence[Example], readout: str, yes_no: tuple[int, int]
) -> list[torch.Tensor]:
    """Return the scores of every candidate of every row.

    Args:
        model: A Hugging Face causal LM.
        hidden: Final hidden states (rows, length, d) of a packed batch.
        examples: The prompts with their branches, one per row.
        readout: `verdict` or `likelihood`.

    Returns:
        A tensor (candidates,) for each row, float32.
    """
    counts = [len(example.branches) for example in examples]
    if readout == "verdict":
        rows = [row for row, count in enumerate(counts) for _ in range(count)]
        columns = [end for example in examples for end in last_positions(example)]
        return list(verdict_scores(model, hidden[rows, columns], yes_no).split(counts))
    rows, columns, targets, owners, first = [], [], [], [], 0
    for row, example in enumerate(examples):
        positions, ids, numbers = predicting_positions(example)
        rows += [row] * len(positions)
        columns += positions
        targets += ids
        owners += [first + number for number in numbers]
        first += len(example.branches)
    log_probs = token_log_probs(model, hidden[rows, columns], torch.tensor(targets, device=hidden.device))
    totals = torch.zeros(first, dtype=log_probs.dtype, device=hidden.device)
    return list(totals.index_add(0, torch.tensor(owners, device=hidden.device), log_probs).split(counts))
