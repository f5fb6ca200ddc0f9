"""Points of the simplex: weights that are not negative and sum to one."""

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

import torch

from lorarec.errors import LorarecError

MAX_POINTS = 300


def check_weights(weights: Sequence[float] | torch.Tensor, size: int, any_sum: bool = False) -> torch.Tensor:
    """Return weights (size,) as float64 if they are on the simplex.

    Args:
        weights: The weights.
        size: The number of weights that are needed.
        any_sum: Whether weights may be negative and have any sum.

    Raises:
        LorarecError: The number of weights is not `size`, or a weight is not finite; or, unless `any_sum`, a weight is
            negative or the sum is not 1 (to within 1e-6).
    """
    values = [float(weight) for weight in weights]
    listed = ", ".join(f"{value:g}" for value in values)
    if len(values) != size:
        raise LorarecError(f"need {size} weights, one for each adapter, got {listed or 'none'}")
    if not all(map(math.isfinite, values)):
        raise LorarecError(f"weights must be finite numbers, got {listed}")
    if not any_sum and min(values) < 0:
        raise LorarecError(f"weights must not be negative, got {listed}")
    if not any_sum and abs(sum(values) - 1) > 1e-6:
        raise LorarecError(f"weights must sum to 1, but {listed} sum to {sum(values):g}")
    return torch.tensor(values, dtype=torch.float64)


def uniform(size: int) -> torch.Tensor:
    """Return equal weights (size,)."""
    return torch.full((size,), 1 / size, dtype=torch.float64)


def simplex_grid(size: int, divisions: int | None = None) -> torch.Tensor:
    """Return all weights that are multiples of 1 / divisions, and equal weights: (points, size).

    Args:
        size: The number of weights of a point.
        divisions: The number of steps from 0 to 1; if None, 10, or the largest number with at most 300 points.
    """
    if divisions is None:
        divisions = max(n for n in range(1, 11) if n == 1 or math.comb(n + size - 1, size - 1) <= MAX_POINTS)
    points = []
    for bars in combinations(range(divisions + size - 1), size - 1):
        edges = (-1, *bars, divisions + size - 1)
        points.append([(right - left - 1) / divisions for left, right in pairwise(edges)])
    grid = torch.tensor(points, dtype=torch.float64)
    middle = uniform(size)
    return grid if (grid - middle).abs().amax(1).min() < 1e-9 else torch.cat([grid, middle[None]])
