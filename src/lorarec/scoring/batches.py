"""Batches of token sequences within a budget, and the mode in which a model reads them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from lorarec.io import track

#: Padded tokens of a forward pass, by default. On a CPU, the activations of larger passes leave its caches.
TOKEN_BUDGET, CPU_TOKEN_BUDGET = 8192, 2048

Result = TypeVar("Result")


def tokens_per_pass(model: Any, token_budget: int | None = None) -> int:
    """Return the number of tokens of a forward pass, padding included: the given one, or else that of the device.

    Args:
        model: Model that reads the tokens.
        token_budget: Number of tokens; None for 2,048 on a CPU and 8,192 on other devices.
    """
    if token_budget is not None:
        return token_budget
    return CPU_TOKEN_BUDGET if model.device.type == "cpu" else TOKEN_BUDGET


def token_batches(lengths: Sequence[int], token_budget: int = TOKEN_BUDGET) -> list[list[int]]:
    """Return the indices of sequences in batches, the longest sequences first.

    A batch has at most `token_budget` tokens, padding included; a sequence longer than that is a batch of its own.

    Examples:
        >>> token_batches([2, 5, 3, 2], token_budget=6)
        [[1], [2, 0], [3]]
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches = []
    start = 0
    while start < len(order):
        size = max(1, token_budget // max(1, lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


def map_batches(
    read: Callable[[list[int]], Iterable[Result]],
    lengths: Sequence[int],
    token_budget: int = TOKEN_BUDGET,
    title: str = "",
    progress: bool = False,
) -> list[Result]:
    """Apply a function to the batches of `token_batches` and return its results in the order of the sequences.

    Args:
        read: Function that returns one result for each index of a batch.
        lengths: The number of tokens of every sequence.
        token_budget: The largest number of tokens of a batch, padding included.
        title: The title of the progress bar.
        progress: Whether the progress bar is shown on stderr.

    Examples:
        >>> map_batches(lambda batch: [10 * index for index in batch], [2, 5, 3], token_budget=6)
        [0, 10, 20]
    """
    results: dict[int, Result] = {}
    for batch in track(token_batches(lengths, token_budget), title, progress):
        results.update(zip(batch, read(batch), strict=True))
    return [results[index] for index in range(len(lengths))]


def pad_rows(rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Return token ids as a tensor (rows, length of the longest row), padded on the right with 0."""
    width = max(map(len, rows))
    return torch.tensor([[*row] + [0] * (width - len(row)) for row in rows], device=device)


@contextmanager
def evaluation_mode(*models: torch.nn.Module) -> Iterator[None]:
    """Put models into evaluation mode, without dropout, and back into their former mode at the end."""
    with _mode(models, training=False):
        yield


@contextmanager
def training_mode(*models: torch.nn.Module) -> Iterator[None]:
    """Put models into training mode and back into their former mode at the end."""
    with _mode(models, training=True):
        yield


@contextmanager
def _mode(models: Sequence[torch.nn.Module], training: bool) -> Iterator[None]:
    before = [model.training for model in models]
    try:
        for model in models:
            model.train(training)
        yield
    finally:
        for model, was_training in zip(models, before, strict=True):
            model.train(was_training)
