"""Several rankings made into one, in turns."""

from collections.abc import Mapping, Sequence
from itertools import islice


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
