"""Pure functions of scores: ranks, figures per case, intervals and tests."""

from lorarec.metrics.ranking import hit_rate, ndcg, reciprocal_rank, target_ranks
from lorarec.metrics.statistics import bootstrap_interval, paired_t_test

__all__ = ["bootstrap_interval", "hit_rate", "ndcg", "paired_t_test", "reciprocal_rank", "target_ranks"]
