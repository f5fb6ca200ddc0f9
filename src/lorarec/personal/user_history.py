"""What a router is told of a user whose history has gone on since it was trained: the numbers of `split_users`."""

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
    """What a user chose, oldest first.

    Attributes:
        user: the id.
        items: item ids.
        times: of each, as in the dataset.
    """

    user: str
    items: Sequence[str]
    times: Sequence[int]

    def __len__(self) -> int:
        return len(self.items)


class RatedHistories:
    """Reads histories with a conventional recommender, as `user_representations` reads those it was trained on.

    Items that it was not trained on are passed over. A choice without a rating counts as the lowest that is a click.

    Args:
        recommender: of the training part of a split.
        rated: user_id, item_id, timestamp and rating of the whole dataset, sorted by user.

    Attributes:
        width: numbers d that are told of a user.
    """

    def __init__(self, recommender: CTRModel, rated: pl.DataFrame) -> None:
        log = recommender.encoder.log
        self._recommender = recommender
        self._rated = rated
        self.width = recommender.model.config.hidden_units[-1]
        self._users = {user: number for number, user in enumerate(log.users)}
        self._items = {item: number for number, item in enumerate(log.dataset.items[ITEM])}

    def __call__(self, past: UserHistory) -> np.ndarray | None:
        """(d,) float32 of a user; None where all that is in the history falls back."""
        encoder = self._recommender.encoder
        known = [place for place, item in enumerate(past.items) if item in self._items]
        item = np.array([self._items[past.items[place]] for place in known], np.int64)
        time = np.array([past.times[place] for place in known], np.int64)
        rating = self._ratings(past)[known]
        user = self._users.get(past.user, len(self._users))
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
        own = CTRModel(self._recommender.model, encoder.over(log), self._recommender.record)
        if falls_back(own.encoder, np.arange(len(log))).all():
            return None
        return latest_means(own)[1][0]

    def _ratings(self, past: UserHistory) -> np.ndarray:
        """(events,) float32."""
        log = self._recommender.encoder.log
        begin, end = (self._rated[USER].search_sorted(past.user, side) for side in ("left", "right"))
        rows = self._rated[begin:end].filter(pl.col(RATING).is_between(0, log.stars))
        given = {(item, time): rating for item, time, rating in rows.select(ITEM, TIME, RATING).iter_rows()}
        told = [given.get(event, log.positive_from) for event in zip(past.items, past.times, strict=True)]
        return np.array(told, np.float32)


class TitledHistories:
    """Reads histories by their titles, as `split_users` does without a recommender.

    Args:
        vectors: item_id and vector; other items are passed over.

    Attributes:
        width: numbers d that are told of a user.
    """

    def __init__(self, vectors: pl.DataFrame) -> None:
        self._vectors = vectors[VECTOR].to_numpy()
        self.width = self._vectors.shape[1]
        self._items = {item: number for number, item in enumerate(vectors[ITEM])}

    def __call__(self, past: UserHistory) -> np.ndarray | None:
        """(d,) float32 of a user; None where no item is known."""
        known = [self._items[item] for item in past.items if item in self._items]
        return self._vectors[known].mean(0) if known else None
