"""Which events are not routed, and how many test events that concerns."""

import numpy as np

from lorarec.ctr import UNKNOWN, FeatureEncoder
from lorarec.data import TRAIN


def falls_back(encoder: FeatureEncoder, events: np.ndarray) -> np.ndarray:
    """(events,) True where the router's mean weights are taken, since the recommender's representation of user and
    target lacks one of them.

    - Of the user it lacks everything but a profile if there is no history. A user that training never saw is routed all
      the same: what the router reads of a user comes from the history, which is there for new users too.
    - Of the target it lacks everything if training saw neither the item nor its genres nor its year. A new item with
      known genres or year is routed by them.
    """
    log = encoder.log
    without_history = log.begin[events] == log.end[events]
    known = [(field.table[log.item[events]] != UNKNOWN).any(1) for field in encoder.items]
    return without_history | ~np.any(known, axis=0)


def counts_of_test(encoder: FeatureEncoder, test: np.ndarray) -> dict[str, int]:
    """The tested events, those that the training part says little about, and those that fall back."""
    log = encoder.log
    train = log.rows(TRAIN)
    return {
        "events": len(test),
        "unseen_users": int((~np.isin(log.user[test], log.user[train])).sum()),
        "unseen_items": int((~np.isin(log.item[test], log.item[train])).sum()),
        "without_history": int((log.begin[test] == log.end[test]).sum()),
        "fell_back": int(falls_back(encoder, test).sum()),
    }
