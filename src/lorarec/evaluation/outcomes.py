"""What users chose of the answers that they were shown."""

from datetime import timedelta

import numpy as np
import polars as pl

from lorarec.data import ITEM, TIME, USER
from lorarec.errors import LorarecError
from lorarec.metrics import hit_rate, ndcg, reciprocal_rank

#: Cut-offs of the metrics of answers.
ANSWER_CUTOFFS = (1, 3, 10)
ANSWER_METRICS = (
    *(f"hr@{k}" for k in ANSWER_CUTOFFS),
    *(f"ndcg@{k}" for k in ANSWER_CUTOFFS),
    "mrr",
)
#: Largest number that is a time in seconds: the year 5138. Greater ones are milliseconds or less.
MAX_SECONDS = 100_000_000_000


def answer_outcomes(answers: pl.DataFrame, events: pl.DataFrame, window: timedelta) -> pl.DataFrame:
    """Return the metrics of each answer, given what the users did after it.

    An event belongs to the latest answer to its user that had the item and was given at most `window` before. An item
    that was chosen several times after an answer counts once.

    Args:
        answers: Answers with users, as `read_answers` returns them.
        events: Columns `user_id`, `item_id` and `timestamp`: seconds since 1970, or times. An event in whole seconds
            may be as old as the second in which the answer was given.
        window: Time after an answer in which events count.

    Returns:
        The answers in their order, with a column for each of `ANSWER_METRICS`: `hr@k` is 1 if a chosen item is
        among the first k; `ndcg@k` is the NDCG with the chosen items as the relevant ones (Jarvelin and Kekalainen
        2002); `mrr` is the reciprocal rank of the first chosen item. All are 0 if nothing was chosen.

    Raises:
        LorarecError: A column of the events is missing, or its times are not of a known unit.
    """
    is_whole, times = _event_times(events)
    asked = pl.col("time").dt.truncate("1s") if is_whole else pl.col("time")
    shown = (
        answers.with_row_index("answer")
        .select(
            "answer", USER, asked.alias("asked"), "item_ids", rank=pl.int_ranges(1, pl.col("item_ids").list.len() + 1)
        )
        .explode("item_ids", "rank")
        .rename({"item_ids": ITEM})
        .drop_nulls()
        .group_by("answer", USER, "asked", ITEM)
        .agg(pl.col("rank").min())
    )
    chosen = (
        events.select(pl.col(USER, ITEM).cast(pl.String), time=times)
        .with_row_index("event")
        .join(shown, on=[USER, ITEM])
        .filter(pl.col("time").is_between(pl.col("asked"), pl.col("asked") + window))
        .sort("asked", "answer")
        .group_by("event")
        .last()
        .unique(["answer", ITEM])
        .sort("answer", "rank")
    )
    metrics = _metrics(answers.height, chosen["answer"].cast(pl.Int64).to_numpy(), chosen["rank"].to_numpy())
    return answers.with_columns(pl.Series(name, values) for name, values in metrics.items())


def _event_times(events: pl.DataFrame) -> tuple[bool, pl.Expr]:
    """Return whether the times of events are whole seconds, and an expression of them as times."""
    for column in (USER, ITEM, TIME):
        if column not in events.columns:
            raise LorarecError(f"the events have no column {column}: give user_id, item_id and timestamp")
    kind = events.schema[TIME]
    if isinstance(kind, pl.Datetime):
        zoned = pl.col(TIME).dt.replace_time_zone("UTC") if kind.time_zone is None else pl.col(TIME)
        return False, zoned.dt.convert_time_zone("UTC").cast(pl.Datetime("us", "UTC"))
    if not kind.is_integer():
        raise LorarecError(f"the timestamps of the events are {kind}: give seconds since 1970 as integers, or times")
    latest = events[TIME].max()
    if isinstance(latest, int) and latest > MAX_SECONDS:
        raise LorarecError(
            f"a timestamp of the events is {latest}, which are no seconds since 1970: give times in their place, as a "
            "datetime column of a Parquet file"
        )
    return True, pl.from_epoch(pl.col(TIME), "s").dt.replace_time_zone("UTC").cast(pl.Datetime("us", "UTC"))


def _metrics(count: int, owner: np.ndarray, ranks: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics (answers,) by name.

    Args:
        count: Number of answers.
        owner: Answer (chosen,) of each chosen item, in order.
        ranks: Rank (chosen,) of the item in its answer, in order for each answer.
    """
    number = np.bincount(owner, minlength=count)
    is_first = np.diff(owner, prepend=-1) > 0
    answered, best = owner[is_first], ranks[is_first]

    def of_best(values: np.ndarray) -> np.ndarray:
        spread = np.zeros(count)
        spread[answered] = values
        return spread

    found = {f"hr@{k}": of_best(hit_rate(best, k)) for k in ANSWER_CUTOFFS}
    for k in ANSWER_CUTOFFS:
        gained = np.bincount(owner, weights=ndcg(ranks, k), minlength=count)
        ideal = np.concatenate([[1.0], np.cumsum(ndcg(np.arange(1, k + 1), k))])
        found[f"ndcg@{k}"] = gained / ideal[np.minimum(number, k)]
    return found | {"mrr": of_best(reciprocal_rank(best))}
