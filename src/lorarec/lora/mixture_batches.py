"""Many mixtures over the same prompts as rows of one batch."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from lorarec.lora.injection import MixedModel
from lorarec.prompts import Example
from lorarec.scoring import map_batches


@torch.no_grad()
def score_at_weights(
    mixed: MixedModel,
    points: torch.Tensor,
    examples: Sequence[Example],
    read: Callable[[Any, list[Example]], Iterable[Any]],
    length: Callable[[Example], int],
    token_budget: int,
) -> list[list[Any]]:
    """What `read` finds for every example under every mixture.

    Every pair of an example and a mixture is a row; the mixed layers give each row its own weights.

    Args:
        points: (points, K) weights.
        read: from a model and a batch of examples to one value for each.
        length: tokens an example takes.

    Returns:
        For each point, one value per example.
    """
    rows = [(example, point) for example in range(len(examples)) for point in range(len(points))]
    points = points.to(mixed.model.device)

    def read_rows(batch: list[int]) -> Iterable[Any]:
        mixed.set_weights(points[[rows[row][1] for row in batch]])
        return read(mixed.model, [examples[rows[row][0]] for row in batch])

    found = map_batches(read_rows, [length(examples[example]) for example, _ in rows], token_budget)
    return [found[point :: len(points)] for point in range(len(points))]
