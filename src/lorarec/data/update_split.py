"""Splits of datasets to which interactions were appended."""

from dataclasses import replace

import polars as pl

from lorarec.data.appending import UPDATES
from lorarec.data.columns import HISTORY, IS_NEW, ITEM, TIME, USER
from lorarec.data.dataset import Dataset
from lorarec.data.split import Split
from lorarec.data.splitting import GLOBAL_TIME, global_time, time_cuts, warn_of_positions
from lorarec.data.times import EARLIEST_MOMENT
from lorarec.errors import LorarecError

_NUMBER = "number"


def split_new_interactions(
    dataset: Dataset,
    *,
    ratios: tuple[float, float, float] = (8, 1, 1),
    negatives: int = 29,
    seed: int = 42,
    max_history: int = 60,
) -> Split:
    """Divide a dataset by time within the interactions that `Dataset.append` added last.

    The training part has all interactions before the update and the first of the new ones, the validation part the next
    and the test part the last of them. So no model that was trained before the update has seen a validation or test
    target, whatever split it was trained on. New interactions that are not later than all those before the update
    belong to the training part. If there are any, and the timestamps seem to be positions of each user, a warning is
    logged.

    Args:
        dataset: A dataset that `Dataset.append` returned, or that was loaded from a folder of one.
        ratios: Sizes of the training, validation and test parts of the new interactions.
        negatives: Number of items in each candidate set that the user never interacted with.
        seed: Seed of the candidates.
        max_history: Number of latest items in the history of a case.

    Raises:
        LorarecError: Nothing was appended to the dataset, or too few interactions are later than those before.

    Examples:
        >>> import polars as pl
        >>> from lorarec import load_sample, split_new_interactions
        >>> films = load_sample("action")
        >>> cut = films.interactions["timestamp"].quantile(0.9)
        >>> is_old = pl.col("timestamp") < cut
        >>> first = films.subset(films.interactions.filter(is_old), filter_note="the first 90%")
        >>> grown = first.append(films.interactions.filter(~is_old), films.items)
        >>> split_new_interactions(grown).info["options"]["protocol"]
        'global-time'
    """
    until = _previous_until(dataset)
    if dataset.info[UPDATES][-1]["late_interactions"]:
        warn_of_positions(dataset.interactions, dataset.name)
    times = dataset.interactions[TIME]
    later = times.filter(times > until)
    try:
        cuts = time_cuts(later, ratios, dataset.name)
    except LorarecError:
        remedy = "append more of them at once"
        if until < EARLIEST_MOMENT:
            remedy += ', or use order="file" if the timestamps are positions of each user'
        raise LorarecError(
            f"{dataset.name}: {later.len():,} of the new interactions are later than those before the update, at "
            f"{later.n_unique():,} different times, too few for a split by time: {remedy}"
        ) from None
    return global_time(dataset, cuts=cuts, negatives=negatives, seed=seed, max_history=max_history)


def mark_new_cases(split: Split, previous: Split) -> Split:
    """Return a split whose training part says which items were not in the training part of a previous split.

    `train` has a further column `is_new`, a list of truth values for each history. `lorarec.train` then uses the new
    items alone as targets; all others are read as history, and counted.

    Args:
        split: Split of a dataset.
        previous: Split of the dataset before an update.
    """
    number = pl.int_range(pl.len()).over(USER, ITEM).alias(_NUMBER)  # tells repeated interactions apart
    before, after = (
        each.train.select(USER, pl.col(HISTORY).alias(ITEM)).explode(ITEM).drop_nulls(ITEM).with_columns(number)
        for each in (previous, split)
    )
    known = before.with_columns(pl.lit(False).alias(IS_NEW))
    marked = after.join(known, on=[USER, ITEM, _NUMBER], how="left", maintain_order="left")
    marked = marked.with_columns(pl.col(IS_NEW).fill_null(True))
    lists = marked.group_by(USER, maintain_order=True).agg(IS_NEW)
    train = split.train.join(lists, on=USER, how="left", maintain_order="left")
    return replace(split, train=train, info={**split.info, "new_since": previous.cases})


def may_know_test_items(dataset: Dataset, split: Split, fingerprint: str) -> bool:
    """Return whether models of an earlier state of a dataset may have been trained on test interactions of a split.

    They have not, if the split is by time and its test part begins after the earlier state ended.

    Args:
        dataset: The dataset.
        split: A split of it.
        fingerprint: Fingerprint of the data of the models; False if it is not that of an earlier state.
    """
    ends = [each["previous_until"] for each in dataset.info.get(UPDATES, []) if each["previous"] == fingerprint]
    if not ends:
        return False
    is_by_time = split.info["options"].get("protocol") == GLOBAL_TIME
    return not is_by_time or split.info["counts"]["cut_times"][1] <= max(ends)


def _previous_until(dataset: Dataset) -> int:
    """Return the last timestamp of a dataset before its last update.

    Raises:
        LorarecError: Nothing was appended to it.
    """
    updates = dataset.info.get(UPDATES)
    if not updates:
        raise LorarecError(f"{dataset.name}: nothing was appended to it, so that it has no new interactions to divide")
    return int(updates[-1]["previous_until"])
