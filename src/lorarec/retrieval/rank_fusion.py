"""Combination of rankings: reciprocal rank fusion, and interleaving with quotas."""

from collections.abc import Mapping, Sequence
from itertools import islice

#: Constant added to every rank, so that the first ranks do not dominate; the value of Cormack et al.
DAMPING = 60


def fuse(rankings: Mapping[str, Sequence[int]], weights: Mapping[str, float]) -> dict[int, str]:
    """Combine rankings by reciprocal rank fusion (Cormack et al., SIGIR 2009): the weighted sum of 1 / (60 + rank).

    Args:
        rankings: Rows of each ranking, the best first.
        weights: Weights of rankings that differ from 1, by name.

    Returns:
        The name of the ranking in which each row has the best rank (the first of equal ones), rows with the highest
        sum first.
    """
    sums: dict[int, float] = {}
    best: dict[int, tuple[int, str]] = {}
    for name, rows in rankings.items():
        for rank, row in enumerate(rows, 1):
            sums[row] = sums.get(row, 0) + weights.get(name, 1) / (DAMPING + rank)
            if row not in best or rank < best[row][0]:
                best[row] = rank, name
    return {row: best[row][1] for row in sorted(sums, key=sums.__getitem__, reverse=True)}


def interleave(
    rankings: Mapping[str, Sequence[int]], quotas: Mapping[str, int], count: int, fallback: str
) -> dict[int, str]:
    """Interleave rankings: in each round, every ranking contributes the next rows that were not taken yet.

    When a ranking has no rows left, the others continue without it. The fallback is used when all have none left.

    Args:
        rankings: Rows of each ranking, the best first.
        quotas: Number of rows that each ranking contributes in a round.
        count: Maximum number of rows.
        fallback: Name of the ranking that is used last.

    Returns:
        The name of the ranking that each row was taken from, in the order in which rows were taken.
    """
    taken_from: dict[int, str] = {}
    remaining = {name: iter(rows) for name, rows in rankings.items() if name != fallback}
    while remaining and len(taken_from) < count:
        for name in list(remaining):
            room = min(quotas[name], count - len(taken_from))
            taken = list(islice((row for row in remaining[name] if row not in taken_from), room))
            taken_from.update(dict.fromkeys(taken, name))
            if len(taken) < room:
                del remaining[name]
    for row in rankings[fallback]:
        if len(taken_from) >= count:
            break
        taken_from.setdefault(row, fallback)
    return taken_from
