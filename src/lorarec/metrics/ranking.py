"""Metrics of rankings in which one candidate of each case is relevant, so that they are functions of its rank."""

from collections.abc import Sequence

import numpy as np

from lorarec.errors import LorarecError


def target_ranks(scores: Sequence[np.ndarray], target_index: np.ndarray) -> np.ndarray:
    """Return the rank of the target item of every case; 1 is best.

    Among equal scores the earlier candidate ranks first. Candidate sets are stored in random order, so a ranker that
    gives all candidates the same score gets random ranks.

    Args:
        scores: Scores of the candidates of each case, higher is better; cases may differ in length.
        target_index: Positions (cases,) of the target items.

    Returns:
        Ranks (cases,), int64.

    Raises:
        LorarecError: A score is NaN, a case has no candidate at its target's position, or there is not one target
            for each case.

    Examples:
        >>> import numpy as np
        >>> from lorarec.metrics import ndcg, target_ranks
        >>> ranks = target_ranks([np.array([0.1, 0.7, 0.2]), np.array([0.5, 0.4])], np.array([2, 0]))
        >>> ranks.tolist(), ndcg(ranks, k=10).round(2).tolist()
        ([2, 1], [0.63, 1.0])
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
    """Return the NDCG@k of every case (cases,): 1 / log2(rank + 1) if the rank is at most k, otherwise 0."""
    return hit_rate(ranks, k) / np.log2(np.asarray(ranks) + 1)


def hit_rate(ranks: np.ndarray, k: int) -> np.ndarray:
    """Return the hit rate at k of every case (cases,): 1 if the rank is at most k, otherwise 0.

    Raises:
        LorarecError: `k` is not positive.
    """
    if k < 1:
        raise LorarecError(f"a cut-off k must be at least 1, got {k}")
    return (np.asarray(ranks) <= k).astype(np.float64)


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """Return the reciprocal rank of every case (cases,), whose mean is the MRR."""
    return 1.0 / np.asarray(ranks)
