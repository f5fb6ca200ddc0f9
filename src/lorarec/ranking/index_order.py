"""The order in which an index proposes candidates, as a score: a prior of rankers, and a scorer of fusions."""

from dataclasses import replace

import numpy as np

from lorarec.recommenders import CandidateScores

#: Name of the order of an index: as a scorer of a fusion, and as a row of an evaluation over a whole catalogue.
INDEX = "index"


def log_prior(count: int) -> np.ndarray:
    """Return the logarithm of the prior of the index's first `count` proposals (count,), up to a constant.

    The prior of the proposal at place n is proportional to 1 / n. A ranker learns to distinguish the target item from
    random ones, most of which are unlikely; in a pool all items are likely, and the index's order says how likely.

    Examples:
        >>> log_prior(3).round(2).tolist()
        [0.0, -0.69, -1.1]
    """
    return 0.0 - np.log1p(np.arange(count))  # not -x, whose first would be written as -0.0


def with_index_order(cases: CandidateScores) -> CandidateScores:
    """Return the scores with those of one more scorer, `log_prior`; candidates must be in the order of the index."""
    order = np.concatenate([log_prior(size) for size in cases.sizes])
    return replace(cases, scores=np.column_stack([cases.scores, order]))
