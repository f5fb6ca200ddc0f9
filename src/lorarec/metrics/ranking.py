"""Where the true item stands among its candidates, and figures of that rank.

One candidate of each case is right, so every figure is a function of its rank alone.
"""

from collections.abc import Sequence

import numpy as np

from lorarec.errors import LorarecError


def target_ranks(scores: Sequence[np.ndarray], target_index: np.ndarray) -> np.ndarray:
    """Rank of the true candidate of every case; 1 is best.

    Among equal scores the earlier candidate ranks first. Candidate sets are stored in random order, so a ranker that
    gives all candidates one score has the ranks of chance.

    Args:
        scores: for each case the scores of its candidates, higher is better; cases may differ in length.
        target_index: (cases,) position of the true candidate of each case.

    Returns:
        (cases,) int64 ranks.

    Raises:
        LorarecError: a score is NaN, a case has no candidate at its target's position, or there is not one target
            for each case.
    """
    target = np.asarray(target_index, dtype=np.int64)
    if len(scores) != len(target):
        raise LorarecError(f"scores of {len(scores)} cases do not fit {len(target)} targets")
    if len(target) == 0:
        return target
    sizes = np.array([len(case) for case in scores], dtype=np.int64)
    outside = (target < 0) | (target >= sizes)
    if outside.any():
        case = int(outside.argmax())
        raise LorarecError(f"case {case}: target {target[case]} is none of its {sizes[case]} candidates")
    values = np.concatenate(scores)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    if np.isnan(values).any():
        raise LorarecError(f"case {owner[np.isnan(values).argmax()]}: a score is NaN")
    starts = np.cumsum(sizes) - sizes
    place = np.arange(len(values)) - starts[owner]
    wanted = values[starts + target][owner]
    ahead = (values > wanted) | ((values == wanted) & (place < target[owner]))
    return 1 + np.add.reduceat(ahead.astype(np.int64), starts)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k of every case with one right item: 1 / log2(rank + 1) within the first k, else 0. (cases,) -> (cases,)."""
    return hit_rate(ranks, k) / np.log2(np.asarray(ranks) + 1)


def hit_rate(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 where the right item is among the first k, else 0. (cases,) -> (cases,).

    Raises:
        LorarecError: k is not positive.
    """
    if k < 1:
        raise LorarecError(f"a cut-off k must be at least 1, not {k}")
    return (np.asarray(ranks) <= k).astype(np.float64)


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """1 / rank of every case; its mean is the MRR. (cases,) -> (cases,)."""
    return 1.0 / np.asarray(ranks)
