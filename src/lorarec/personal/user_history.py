"""Representations of users from their present histories, which may be longer than those in training."""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from lorarec.ctr import CTRModel
from lorarec.data import ITEM, RATING, TIME, USER
from lorarec.personal.fallback import falls_back
from lorarec.personal.user_adapters import latest_means
from lorarec.personal.user_features import VECTOR


@dataclass(frozen=True)
class UserHistory:
    """The history of a user, oldest item first.

    Attributes:
        user: User id.
        items: Item ids.
        times: Timestamp of each item, as in the dataset.
    """

    user: str
    items: Sequence[str]
    times: Sequence[int]

    def __len__(self) -> int:
        return len(self.items)


class RatedHistories:
    """Represents histories by a click-through model, as `user_representations` does in training.

    Items that the dataset does not have are skipped. An item without a rating has the lowest rating that is a click.

    Args:
        ctr_model: Click-through model of the training part of a split.
        rated: user_id, item_id, timestamp and rating of the whole dataset, sorted by user.

    Attributes:
        size: Size d of a representation.
    """

    def __init__(self, ctr_model: CTRModel, rated: pl.DataFrame) -> None:
        log = ctr_model.encoder.log
        self._ctr_model = ctr_model
        self._rated = rated
        self.size = ctr_model.model.config.hidden_units[-1]
        self._users = {user: number for number, user in enumerate(log.users)}
        self._items = {item: number for number, item in enumerate(log.dataset.items[ITEM])}

    def __call__(self, history: UserHistory) -> np.ndarray | None:
        """Return the representation (d,) float32 of a user; None if all items of the history fall back."""
        encoder = self._ctr_model.encoder
        known = [place for place, item in enumerate(history.items) if item in self._items]
        item = np.array([self._items[history.items[place]] for place in known], np.int64)
        time = np.array([history.times[place] for place in known], np.int64)
        rating = self._ratings(history)[known]
        user = self._users.get(history.user, len(self._users))
        log = replace(
            encoder.log,
            user=np.full(len(item), user),
            item=item,
            rating=rating,
            label=(rating >= encoder.log.positive_from).astype(np.int8),
            time=time,
            begin=np.zeros(len(item), np.int64),
            end=np.searchsorted(time, time),
            part=np.zeros(len(item), np.int8),
        )
        own = CTRModel(self._ctr_model.model, encoder.with_log(log), self._ctr_model.record)
        if falls_back(own.encoder, np.arange(len(log))).all():
            return None
        return latest_means(own)[1][0]

    def _ratings(self, history: UserHistory) -> np.ndarray:
        """Return the ratings of the items of a history, (items,) float32.

        A user may have rated an item several times in the same second; these ratings are taken in their order.
        """
        log = self._ctr_model.encoder.log
        begin, end = (self._rated[USER].search_sorted(history.user, side) for side in ("left", "right"))
        rows = self._rated[begin:end].filter(pl.col(RATING).is_between(0, log.stars))
        given: dict[tuple[str, int], deque[float]] = defaultdict(deque)
        for item, time, rating in rows.select(ITEM, TIME, RATING).iter_rows():
            given[item, time].append(rating)
        events = zip(history.items, history.times, strict=True)
        ratings = [given[event].popleft() if given[event] else log.positive_from for event in events]
        return np.array(ratings, np.float32)


class TitledHistories:
    """Represents histories by their mean title embedding, as `user_features` does without a click-through model.

    Args:
        vectors: item_id and vector; items without a row are skipped.

    Attributes:
        size: Size d of a representation.
    """

    def __init__(self, vectors: pl.DataFrame) -> None:
        self._vectors = vectors[VECTOR].to_numpy()
        self.size = self._vectors.shape[1]
        self._items = {item: number for number, item in enumerate(vectors[ITEM])}

    def __call__(self, history: UserHistory) -> np.ndarray | None:
        """Return the representation (d,) float32 of a user; None if no item is known."""
        known = [self._items[item] for item in history.items if item in self._items]
        return self._vectors[known].mean(0) if known else None
