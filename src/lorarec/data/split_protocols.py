"""The two protocols that divide a dataset; both draw candidate sets from the whole catalogue by a seed."""

from typing import Any

import numpy as np
import polars as pl

from lorarec.data.candidates import draw_candidates
from lorarec.data.columns import CANDIDATES, HISTORY, ITEM, TARGET, TIME, USER
from lorarec.data.dataset import Dataset
from lorarec.data.hashing import content_hash
from lorarec.data.split import NEW_ITEM, WARM, Split
from lorarec.errors import LorarecError

LEAVE_ONE_OUT, GLOBAL_TIME = "leave-one-out", "global-time"
_CASE_COLUMNS = (USER, HISTORY, TARGET, CANDIDATES)


def leave_one_out(dataset: Dataset, *, new_items: float = 0.1, negatives: int = 29, seed: int = 42) -> Split:
    """Last interaction = test, second last = validation, the rest = training (MoLoRec 4.1).

    Users with fewer than three interactions are left out and counted. Cases of users who touched nearly every item, so
    that no negatives can be drawn for them, are set aside and counted. `new_items` of the items, drawn uniformly,
    never occur in training or validation, neither in histories, targets nor candidates: positions are fixed first,
    then new items are taken out, so a warm test target is always the user's last interaction. `test["new-item"]`
    has, for each user who touched a new item, the last such item as the target and what came before it, without new
    items, as history. Cases left with an empty history are dropped. The other candidates of a test case come from
    the whole catalogue.

    Args:
        dataset: interactions in time order per user.
        new_items: share of the items to hold out; 0 gives the canonical warm protocol over all items and no
            `test["new-item"]`.
        negatives: untouched items per candidate set.
        seed: fixes the new items and the candidates.

    Raises:
        LorarecError: an option out of range, fewer items than candidates, or no user with three interactions.
    """
    if not 0 <= new_items < 1:
        raise LorarecError(f"new_items must be at least 0 and below 1, not {new_items}")
    options = {"protocol": LEAVE_ONE_OUT, "new_items": new_items, "negatives": negatives, "seed": seed}
    length, place = pl.len().over(USER), pl.int_range(pl.len()).over(USER)
    rows = dataset.interactions.select(USER, ITEM, (length - place).alias("left"), length.alias("length"))
    too_short = rows.filter(pl.col("length") < 3)[USER].n_unique()
    rows = rows.filter(pl.col("length") >= 3)
    if rows.is_empty():
        raise LorarecError(f"{dataset.name}: no user has the three interactions that leave-one-out needs")
    held_out = _new_items(dataset, new_items, seed)
    rows = rows.with_columns(pl.col(ITEM).is_in(held_out.implode()).alias("new"))
    known = rows.filter(~pl.col("new"))
    train = histories_of(known.filter(pl.col("left") > 2))
    valid = _join(_targets(known.filter(pl.col("left") == 2)), train)
    test = {WARM: _join(_targets(known.filter(pl.col("left") == 1)), histories_of(known.filter(pl.col("left") > 1)))}
    if new_items:
        last_new = rows.filter("new").group_by(USER).agg(pl.col("left").min().alias("target_left"))
        rows = rows.join(last_new, on=USER, maintain_order="left")
        before = rows.filter((pl.col("left") > pl.col("target_left")) & ~pl.col("new"))
        targets = _targets(rows.filter(pl.col("left") == pl.col("target_left")))
        test[NEW_ITEM] = _join(targets, histories_of(before))
    catalogue = dataset.items[ITEM]
    warm_catalogue = catalogue.filter(~catalogue.is_in(held_out.implode()))
    extra = {"users_too_short": too_short, "new_items": held_out.len()}
    return _with_candidates(dataset, train, valid, test, options, extra, warm_catalogue)


def global_time(
    dataset: Dataset,
    *,
    ratios: tuple[float, float, float] = (8, 1, 1),
    negatives: int = 29,
    seed: int = 42,
    max_history: int = 60,
) -> Split:
    """Cut all interactions at two moments; every later interaction with a history is a case (RecLoRA 4.1: 8:1:1).

    Interactions at the moment of a cut belong to the later part, so nothing in training is as late as a validation
    target. `test["warm"]` has targets that occur before the test part, `test["new-item"]`, if any, those that do not;
    these never occur in training or validation, nor among the candidates there.

    Args:
        dataset: needs timestamps that are comparable across users.
        ratios: sizes of the training, validation and test parts.
        negatives: untouched items per candidate set.
        seed: fixes the candidates.
        max_history: histories of cases keep the latest so many items.

    Raises:
        LorarecError: an option out of range, fewer items than candidates, or an empty part.
    """
    rows = dataset.interactions.select(USER, ITEM, TIME)
    cuts = time_cuts(rows[TIME], ratios, dataset.name)
    options = {"protocol": GLOBAL_TIME, "ratios": list(ratios), "negatives": negatives, "seed": seed}
    options["max_history"] = max_history
    part = pl.sum_horizontal(pl.col(TIME) >= cut for cut in cuts)
    rows = rows.with_columns(part.alias("part"), pl.int_range(pl.len()).over(USER).alias("place")).with_row_index()
    train = histories_of(rows.filter(pl.col("part") == 0))
    valid, last = (_window_cases(rows, part, max_history) for part in (1, 2))
    seen = rows.filter(pl.col("part") < 2)[ITEM].unique()
    is_seen = pl.col(TARGET).is_in(seen.implode())
    test = {WARM: last.filter(is_seen)}
    if test[WARM].height < last.height:
        test[NEW_ITEM] = last.filter(~is_seen)
    catalogue = dataset.items[ITEM]
    extra = {"new_items": rows[ITEM].n_unique() - seen.len(), "cut_times": cuts}
    return _with_candidates(
        dataset, train, valid, test, options, extra, catalogue.filter(catalogue.is_in(seen.implode()))
    )


def time_cuts(times: pl.Series, ratios: tuple[float, float, float], name: str) -> list[int]:
    """Timestamps of the first validation and the first test event; events at the moment of a cut follow it.

    Args:
        times: of all events, in any order.
        ratios: sizes of the training, validation and test parts.
        name: of the dataset, for messages.

    Raises:
        LorarecError: ratios that are not three positive numbers, or an empty part.
    """
    if len(ratios) != 3 or min(ratios) <= 0:
        raise LorarecError(f"ratios must be three positive numbers, not {ratios}")
    times = times.sort()
    cuts = [times[int(times.len() * share)] for share in np.cumsum(ratios)[:2] / sum(ratios)]
    if not times[0] < cuts[0] < cuts[1]:
        raise LorarecError(f"{name}: too few distinct timestamps for a split by time; use leave-one-out")
    return cuts


def _new_items(dataset: Dataset, share: float, seed: int) -> pl.Series:
    items = dataset.interactions[ITEM].unique().sort()
    count = max(1, round(share * items.len())) if share else 0
    return items[np.sort(_stream(seed, "new items").permutation(items.len())[:count])]


def _stream(seed: int, purpose: str) -> np.random.Generator:
    """A generator of its own for every purpose, so that changing one draw leaves the others alone."""
    return np.random.default_rng([seed, *purpose.encode()])


def histories_of(rows: pl.DataFrame) -> pl.DataFrame:
    """user_id and history (item ids) of interactions that are sorted by user and time, one row per user."""
    return rows.group_by(USER, maintain_order=True).agg(pl.col(ITEM).alias(HISTORY))


def _targets(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(USER, pl.col(ITEM).alias(TARGET))


def _join(targets: pl.DataFrame, histories: pl.DataFrame) -> pl.DataFrame:
    return targets.join(histories, on=USER, maintain_order="left").select(USER, HISTORY, TARGET)


def _window_cases(rows: pl.DataFrame, part: int, max_history: int) -> pl.DataFrame:
    """Every interaction of a part that has earlier ones by its user; `index` is the row, `place` its rank there."""
    cases = rows.filter((pl.col("part") == part) & (pl.col("place") > 0))
    size = cases["place"].clip(upper_bound=max_history).to_numpy().astype(np.int64)
    first = cases["index"].to_numpy().astype(np.int64) - size
    starts = np.cumsum(size) - size
    taken = np.arange(size.sum()) + np.repeat(first - starts, size)
    case = pl.Series("case", np.repeat(np.arange(len(size)), size))
    history = pl.DataFrame({"case": case, HISTORY: rows[ITEM].gather(taken)})
    lists = history.group_by("case", maintain_order=True).agg(HISTORY)
    return cases.select(USER, lists[HISTORY], pl.col(ITEM).alias(TARGET))


def _with_candidates(
    dataset: Dataset,
    train: pl.DataFrame,
    valid: pl.DataFrame,
    test: dict[str, pl.DataFrame],
    options: dict[str, Any],
    extra_counts: dict[str, Any],
    valid_catalogue: pl.Series,
) -> Split:
    if options["negatives"] < 1:
        raise LorarecError(f"a candidate set needs at least one negative, not {options['negatives']}")
    seed, negatives, touched = options["seed"], options["negatives"], dataset.interactions

    def drawn(cases: pl.DataFrame, catalogue: pl.Series, purpose: str) -> pl.DataFrame:
        return draw_candidates(cases, touched, catalogue, negatives, _stream(seed, purpose)).select(_CASE_COLUMNS)

    asked = [valid, *test.values()]
    cases, users = sum(frame.height for frame in asked), pl.concat(frame[USER] for frame in asked).unique()
    valid = drawn(valid, valid_catalogue, "valid")
    test = {setting: drawn(frame, dataset.items[ITEM], setting) for setting, frame in test.items()}
    kept = {"valid": valid.height} | {f"test {setting}": frame.height for setting, frame in test.items()}
    if cases and not sum(kept.values()):
        raise LorarecError(
            f"{dataset.name}: no user left {negatives} items untouched: ask for fewer negatives (--negatives) or use "
            "more items"
        )
    counts = {"train": train.height} | kept | extra_counts
    counts["cases_without_negatives"] = cases - sum(kept.values())
    left = pl.concat(frame[USER] for frame in (valid, *test.values())).unique()
    counts["users_without_negatives"] = len(users) - len(left)
    info = {
        "options": options,
        "settings": list(test),
        "counts": counts,
        "dataset": dataset.fingerprint,
        "fingerprint": content_hash(train, valid, *test.values()),
    }
    return Split(train, valid, test, info)
