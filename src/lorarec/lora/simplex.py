"""Points of the simplex: weights that are not negative and sum to one."""

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

import torch

from lorarec.errors import LorarecError

MOST_POINTS = 300


def check_weights(weights: Sequence[float] | torch.Tensor, size: int) -> torch.Tensor:
    """The weights (size,) as float64, if they are on the simplex.

    Raises:
        LorarecError: wrong number, a negative or non-finite weight, or a sum other than 1 (to within 1e-6).
    """
    values = [float(weight) for weight in weights]
    shown = ", ".join(f"{value:g}" for value in values)
    if len(values) != size:
        raise LorarecError(f"{len(values)} weights ({shown}) for {size} adapters: give one each")
    if not all(map(math.isfinite, values)):
        raise LorarecError(f"weights must be finite numbers, got {shown}")
    if min(values) < 0:
        raise LorarecError(f"weights must not be negative, got {shown}")
    if abs(sum(values) - 1) > 1e-6:
        raise LorarecError(f"weights must sum to 1, but {shown} sum to {sum(values):g}")
    return torch.tensor(values, dtype=torch.float64)


def uniform(size: int) -> torch.Tensor:
    """Equal weights (size,)."""
    return torch.full((size,), 1 / size, dtype=torch.float64)


def simplex_grid(size: int, divisions: int | None = None) -> torch.Tensor:
    """All weights that are multiples of 1 / divisions, and the uniform ones: (points, size).

    Args:
        divisions: 10 unless that makes more than 300 points; then as many as stay below.
    """
    if divisions is None:
        divisions = max(n for n in range(1, 11) if n == 1 or math.comb(n + size - 1, size - 1) <= MOST_POINTS)
    points = []
    for bars in combinations(range(divisions + size - 1), size - 1):
        edges = (-1, *bars, divisions + size - 1)
        points.append([(right - left - 1) / divisions for left, right in pairwise(edges)])
    grid = torch.tensor(points, dtype=torch.float64)
    middle = uniform(size)
    return grid if (grid - middle).abs().amax(1).min() < 1e-9 else torch.cat([grid, middle[None]])
