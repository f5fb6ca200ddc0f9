"""Click-through data: every rating as a labelled event with the user's earlier events as its history."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from lorarec.data.columns import ITEM, RATING, TIME, USER
from lorarec.data.dataset import Dataset
from lorarec.data.hashing import content_hash
from lorarec.data.splitting import time_cuts
from lorarec.errors import LorarecError

TRAIN, VALID, TEST = PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class ClickLog:
    """Rated events of all users, sorted by user and time; all arrays have one entry per event.

    The history of event i is the slice `begin[i]:end[i]` of the same arrays: what its user did strictly before its
    timestamp. So no history can hold the target or anything as late as it.

    Attributes:
        dataset: where the events come from.
        users: user ids.
        user: (events,) index into `users`.
        item: (events,) index into the rows of `dataset.items`.
        rating: (events,) float32.
        label: (events,) 1 for a rating of at least `positive_from`.
        time: (events,) timestamps in seconds.
        begin: (events,) first event of the same user.
        end: (events,) first event of the same user that is not before this one.
        part: (events,) 0 train, 1 valid, 2 test, by global time.
        positive_from: the lowest rating that counts as a click.
        stars: the highest rating of the scale.
    """

    dataset: Dataset
    users: pl.Series
    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    label: np.ndarray
    time: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    part: np.ndarray
    positive_from: float
    stars: float

    def __len__(self) -> int:
        return len(self.user)

    def rows(self, part: str) -> np.ndarray:
        """The events of `train`, `valid` or `test` in time order."""
        events = np.flatnonzero(self.part == PARTS.index(part))
        return events[np.argsort(self.time[events], kind="stable")]

    def few_shot(self, count: int, seed: int = 42, part: str = TRAIN) -> np.ndarray:
        """`count` events of a part drawn uniformly, in time order; a larger count keeps those of a smaller one.

        Raises:
            LorarecError: the part has fewer events than that, or a count below 1.
        """
        events = self.rows(part)
        if not 1 <= count <= len(events):
            raise LorarecError(f"cannot draw {count} of {len(events)} {part} events")
        drawn = np.random.default_rng(seed).permutation(len(events))[:count]
        return events[np.sort(drawn)]

    def histories(self, events: np.ndarray, limit: int) -> np.ndarray:
        """The latest `limit` events before each of `events`.

        Returns:
            (events, T): oldest first, -1 behind the latest; T is the length of the longest history, at least 1.
        """
        begin, end = self.begin[events, None], self.end[events, None]
        begin = np.maximum(begin, end - limit)
        shown = begin + np.arange(max(1, (end - begin).max(initial=0)))
        return np.where(shown < end, shown, -1)

    @cached_property
    def profiles(self) -> pl.DataFrame:
        """What is known of each of `users`, in their order: their ids and the columns of `dataset.users`, if any."""
        table = pl.DataFrame({USER: self.users})
        if self.dataset.users is None:
            return table
        return table.join(self.dataset.users, on=USER, how="left", maintain_order="left")

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over the data, user profiles included, and the way it was labelled and divided."""
        how = pl.DataFrame({"part": self.part, "label": self.label}).with_columns(stars=pl.lit(self.stars))
        data = self.dataset
        return content_hash(data.interactions, data.items, *([] if data.users is None else [data.users]), how)


def click_log(
    dataset: Dataset,
    *,
    positive_from: float = 4.0,
    stars: float = 5.0,
    ratios: tuple[float, float, float] = (8, 1, 1),
) -> ClickLog:
    """Label and divide a dataset's ratings by global time (RecLoRA 4.1: 8:1:1).

    Args:
        dataset: every interaction rated, with timestamps that are comparable across users.
        positive_from: a rating of at least this is a click. The paper: 4 for MovieLens-1M, above 3 for
            MovieLens-25M (3.5), 4 for GoodReads.
        stars: the highest rating of the scale.
        ratios: sizes of the training, validation and test parts.

    Raises:
        LorarecError: an interaction without a rating or with one outside 0 to `stars`, labels all alike, ratios that
            are not three positive numbers, or an empty part.
    """
    rows = dataset.interactions
    _check_ratings(rows, dataset.name, stars)
    label = (rows[RATING] >= positive_from).to_numpy().astype(np.int8)
    if label.all() or not label.any():
        what = "every rating is" if label.all() else "no rating is"
        raise LorarecError(f"{dataset.name}: {what} at least {positive_from}: choose another threshold")
    time = rows[TIME].to_numpy()
    part = sum((time >= cut).astype(np.int8) for cut in time_cuts(rows[TIME], ratios, dataset.name))
    users = rows[USER].unique(maintain_order=True)
    user = rows[USER].cast(pl.Enum(users)).to_physical().to_numpy().astype(np.int64)
    item = rows[ITEM].cast(pl.Enum(dataset.items[ITEM])).to_physical().to_numpy().astype(np.int64)
    new_user = np.flatnonzero(np.diff(user, prepend=-1))
    new_moment = np.flatnonzero((np.diff(user, prepend=-1) != 0) | (np.diff(time, prepend=time[0] - 1) != 0))
    events = np.arange(len(rows))
    return ClickLog(
        dataset=dataset,
        users=users,
        user=user,
        item=item,
        rating=rows[RATING].to_numpy(),
        label=label,
        time=time,
        begin=new_user[np.searchsorted(new_user, events, side="right") - 1],
        end=new_moment[np.searchsorted(new_moment, events, side="right") - 1],
        part=np.asarray(part),
        positive_from=positive_from,
        stars=stars,
    )


def _check_ratings(rows: pl.DataFrame, name: str, stars: float) -> None:
    rated = rows[RATING].is_between(0, stars).fill_null(value=False)
    if rated.all():
        return
    at = int((~rated).arg_max() or 0)
    user, item, rating = rows.select(USER, ITEM, RATING).row(at)
    problem = "is not rated" if rating is None else f"has the rating {rating}, outside 0 to {stars:g}"
    raise LorarecError(f"{name}: item {item} of user {user} {problem}: fix or remove it, or name the scale's top")
