"""Click logs: every rating is a labelled event whose history is the user's earlier events."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from lorarec.data.columns import ITEM, RATING, TIME, USER
from lorarec.data.dataset import Dataset
from lorarec.data.hashing import content_hash
from lorarec.data.splitting import time_cuts, warn_of_positions
from lorarec.errors import LorarecError

TRAIN, VALID, TEST = PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class ClickLog:
    """Rated events of all users, sorted by user and time; all arrays have one entry per event.

    The history of event i is the slice `begin[i]:end[i]` of the same arrays: the events of its user strictly before its
    timestamp. So no history contains the target or anything as late as it.

    Attributes:
        dataset: The dataset of the events.
        users: The user ids.
        user: Indices (events,) into `users`.
        item: Indices (events,) of rows of `dataset.items`.
        rating: Ratings (events,), float32.
        label: Labels (events,): 1 for a rating of at least `positive_from`, otherwise 0.
        time: Timestamps (events,) in seconds.
        begin: Indices (events,) of the first event of the same user.
        end: Indices (events,) of the first event of the same user that is not before this one.
        part: Parts (events,) by global time: 0 for train, 1 for valid, 2 for test.
        positive_from: The lowest rating that counts as a click.
        stars: The highest rating of the scale.
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
        """Return the indices of the events of a part, `train`, `valid` or `test`, in time order."""
        events = np.flatnonzero(self.part == PARTS.index(part))
        return events[np.argsort(self.time[events], kind="stable")]

    def few_shot(self, count: int, seed: int = 42, part: str = TRAIN) -> np.ndarray:
        """Draw events of a part uniformly; a larger count includes the events of a smaller one.

        Args:
            count: Number of events.
            seed: Seed of the draw.
            part: `train`, `valid` or `test`.

        Returns:
            Indices (count,) of the events in time order.

        Raises:
            LorarecError: The count is below 1 or above the number of events of the part.
        """
        events = self.rows(part)
        if not 1 <= count <= len(events):
            raise LorarecError(f"cannot draw {count} of {len(events)} {part} events: take from 1 to {len(events)}")
        drawn = np.random.default_rng(seed).permutation(len(events))[:count]
        return events[np.sort(drawn)]

    def histories(self, events: np.ndarray, limit: int) -> np.ndarray:
        """Return the latest `limit` events before each of `events`.

        Returns:
            Indices (events, T), oldest first and padded with -1 at the end; T is the length of the longest history, at
            least 1.
        """
        begin, end = self.begin[events, None], self.end[events, None]
        begin = np.maximum(begin, end - limit)
        indices = begin + np.arange(max(1, (end - begin).max(initial=0)))
        return np.where(indices < end, indices, -1)

    @cached_property
    def profiles(self) -> pl.DataFrame:
        """The ids of `users`, in their order, with the columns of `dataset.users`, if there are any."""
        table = pl.DataFrame({USER: self.users})
        if self.dataset.users is None:
            return table
        return table.join(self.dataset.users, on=USER, how="left", maintain_order="left")

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the data, with user profiles, labels and parts: 16 hexadecimal digits."""
        labels = pl.DataFrame({"part": self.part, "label": self.label}).with_columns(stars=pl.lit(self.stars))
        data = self.dataset
        return content_hash(data.interactions, data.items, *([] if data.users is None else [data.users]), labels)


def click_log(
    dataset: Dataset,
    *,
    positive_from: float = 4.0,
    stars: float = 5.0,
    ratios: tuple[float, float, float] = (8, 1, 1),
) -> ClickLog:
    """Label a dataset's ratings as clicks and divide them by global time (RecLoRA, section 4.1: 8:1:1).

    A warning is logged if the timestamps seem to be positions of each user.

    Args:
        dataset: A dataset in which every interaction has a rating, and timestamps are comparable across users.
        positive_from: The lowest rating that counts as a click. The paper uses 4 for MovieLens-1M and GoodReads, and
            more than 3 (3.5) for MovieLens-25M.
        stars: The highest rating of the scale.
        ratios: Sizes of the training, validation and test parts.

    Raises:
        LorarecError: An interaction has no rating or one outside 0 to `stars`, all labels are the same, the ratios are
            not three positive numbers, a part is empty, or genres are not text.

    Examples:
        >>> from lorarec.data import click_log, load_sample
        >>> log = click_log(load_sample("action"))
        >>> len(log), round(float(log.label.mean()), 2)
        (46567, 0.48)
    """
    rows = dataset.interactions
    warn_of_positions(rows, dataset.name)
    _check_ratings(rows, dataset.name, stars)
    _check_genres(dataset)
    label = (rows[RATING] >= positive_from).to_numpy().astype(np.int8)
    if label.all() or not label.any():
        subject = "every rating is" if label.all() else "no rating is"
        raise LorarecError(f"{dataset.name}: {subject} at least {positive_from}: choose another threshold")
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
    if rating is None:
        problem = "is not rated: import ratings, or leave out the interactions that have none"
    else:
        problem = (
            f"has the rating {rating}, outside 0 to {stars:g}: fix or remove it, or set option stars to the highest"
        )
    raise LorarecError(f"{name}: item {item} of user {user} {problem}")


def _check_genres(dataset: Dataset) -> None:
    kind = dataset.items.schema.get("genres", pl.String())
    if kind not in (pl.String, pl.Null):
        raise LorarecError(
            f"{dataset.name}: column genres of the items must be text such as 'Drama, War', not {kind}: "
            "convert or rename it"
        )
