"""The rule by which events get the router's mean weights in place of weights of their own."""

import numpy as np

from lorarec.ctr import UNKNOWN, FeatureEncoder
from lorarec.data import TRAIN


def falls_back(encoder: FeatureEncoder, events: np.ndarray) -> np.ndarray:
    """Return a mask (events,) of the events that get the router's mean weights.

    They are used where the click-through model's representation says nothing about the user or the target:

    - The user has no history. A user who does not occur in the training part is routed, since the router reads the
      history.
    - Neither the target nor its genres nor its year occur in the training part. A new item with known genres or year is
      routed.
    """
    log = encoder.log
    without_history = log.begin[events] == log.end[events]
    known = [(field.table[log.item[events]] != UNKNOWN).any(1) for field in encoder.items]
    return without_history | ~np.any(known, axis=0)


def counts_of_test(encoder: FeatureEncoder, test: np.ndarray) -> dict[str, int]:
    """Return the numbers of test events, of those unlike the training part, and of those that fall back."""
    log = encoder.log
    train = log.rows(TRAIN)
    return {
        "events": len(test),
        "unseen_users": int((~np.isin(log.user[test], log.user[train])).sum()),
        "unseen_items": int((~np.isin(log.item[test], log.item[train])).sum()),
        "without_history": int((log.begin[test] == log.end[test]).sum()),
        "fell_back": int(falls_back(encoder, test).sum()),
    }
