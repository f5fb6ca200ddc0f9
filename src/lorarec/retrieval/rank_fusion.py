"""Several rankings made into one: fused, or in turns."""

from collections.abc import Mapping, Sequence
from itertools import islice

#: Added to every place, so that the first places of a ranking do not decide alone; Cormack et al.'s value.
DAMPING = 60


def fuse(rankings: Mapping[str, Sequence[int]]) -> dict[int, str]:
    """Reciprocal rank fusion (Cormack et al., SIGIR 2009): by the sum of 1 / (60 + place) over the rankings.

    Returns:
        row -> the name of the ranking in which it stands highest, the first of equals; the highest sum first.
    """
    sums: dict[int, float] = {}
    best: dict[int, tuple[int, str]] = {}
    for name, rows in rankings.items():
        for place, row in enumerate(rows, 1):
            sums[row] = sums.get(row, 0) + 1 / (DAMPING + place)
            if row not in best or place < best[row][0]:
                best[row] = place, name
    return {row: best[row][1] for row in sorted(sums, key=sums.__getitem__, reverse=True)}


def take_turns(
    rankings: Mapping[str, Sequence[int]], shares: Mapping[str, int], count: int, fallback: str
) -> dict[int, str]:
    """Take the next rows of each ranking that no other has given yet, `shares` of them in each round.

    A ranking that runs dry leaves its turns to the others. The fallback's turn comes when all have run dry.

    Returns:
        row -> the name of the ranking it was taken from; at most `count`, in the order taken.
    """
    found: dict[int, str] = {}
    waiting = {name: iter(rows) for name, rows in rankings.items() if name != fallback}
    while waiting and len(found) < count:
        for name in list(waiting):
            room = min(shares[name], count - len(found))
            taken = list(islice((row for row in waiting[name] if row not in found), room))
            found.update(dict.fromkeys(taken, name))
            if len(taken) < room:
                del waiting[name]
    for row in rankings[fallback]:
        if len(found) >= count:
            break
        found.setdefault(row, fallback)
    return found
