"""Division of a dataset into training, validation and test by two protocols; splits stored beside their dataset."""

import inspect
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, cast

import numpy as np
import polars as pl

from lorarec.data.candidates import draw_candidates
from lorarec.data.columns import CANDIDATES, HISTORY, ITEM, TARGET, TIME, USER
from lorarec.data.dataset import Dataset
from lorarec.data.hashing import content_hash
from lorarec.data.split import NEW_ITEM, WARM, Split
from lorarec.data.times import EARLIEST_MOMENT, moment_text
from lorarec.errors import LorarecError
from lorarec.io import HubId, read_json

logger = logging.getLogger(__name__)

LEAVE_ONE_OUT: Literal["leave-one-out"] = "leave-one-out"
GLOBAL_TIME: Literal["global-time"] = "global-time"
_CASE_COLUMNS = (USER, HISTORY, TARGET, CANDIDATES)


class SplitOptions(TypedDict, total=False):
    """Options of a split: the protocol, and arguments of its function."""

    protocol: Literal["leave-one-out", "global-time"]
    new_items: float
    ratios: tuple[float, float, float]
    cuts: tuple[int, int]
    negatives: int
    seed: int
    max_history: int


def leave_one_out(dataset: Dataset, *, new_items: float = 0.1, negatives: int = 29, seed: int = 42) -> Split:
    """Divide every user's interactions: the last is for test, the second last for validation, the others for training.

    This is the protocol of MoLoRec (section 4.1). Users with fewer than three interactions are left out and counted.
    Users who interacted with nearly every item, so that too few negatives can be drawn for them, have no cases, which
    are counted as well.

    A share `new_items` of the items, drawn uniformly, never occurs in training or validation, neither in histories nor
    as a target or a candidate. Positions are assigned before these items are removed, so the target of a warm test case
    is always the user's last interaction. `test["new-item"]` has a case for each user who interacted with a new item:
    the target is the last such item, and the history consists of the earlier items that are not new. Cases whose
    history is empty are dropped. The other candidates of test cases are drawn from the whole catalogue.

    Args:
        dataset: The interactions of each user in time order.
        new_items: Share of the items to hold out; 0 gives the warm protocol over all items and no `test["new-item"]`.
        negatives: Number of items in each candidate set that the user never interacted with.
        seed: Seed of the new items and of the candidates.

    Raises:
        LorarecError: An option is out of range, there are fewer items than candidates, or no user has three
            interactions.

    Examples:
        >>> from lorarec import leave_one_out, load_sample
        >>> split = leave_one_out(load_sample("action"), new_items=0.1, negatives=29, seed=42)
        >>> split.test["warm"].columns
        ['user_id', 'history', 'target', 'candidates']
    """
    if not 0 <= new_items < 1:
        raise LorarecError(f"option new_items must be at least 0 and below 1, got {new_items}")
    options: SplitOptions = {"protocol": LEAVE_ONE_OUT, "new_items": new_items, "negatives": negatives, "seed": seed}
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
    cuts: tuple[int, int] | None = None,
    negatives: int = 29,
    seed: int = 42,
    max_history: int = 60,
) -> Split:
    """Divide all interactions at two moments; every later interaction whose user has a history is a case.

    This is the protocol of RecLoRA (section 4.1: 8:1:1). Interactions at the moment of a cut belong to the later part,
    so all of training is earlier than any validation target. `test["warm"]` has the targets that occur before the test
    part and `test["new-item"]`, if there are any, the other targets, which never occur in training or validation, nor
    among the candidates there. A warning is logged if `ratios` divide timestamps that seem to be positions of each
    user.

    Args:
        dataset: A dataset whose timestamps are comparable across users.
        ratios: Sizes of the training, validation and test parts.
        cuts: Timestamps at which the validation part and the test part begin, in place of `ratios`.
        negatives: Number of items in each candidate set that the user never interacted with.
        seed: Seed of the candidates.
        max_history: Number of latest items in the history of a case.

    Raises:
        LorarecError: An option is out of range, there are fewer items than candidates, or a part is empty.
    """
    rows = dataset.interactions.select(USER, ITEM, TIME)
    division: SplitOptions = {"ratios": ratios} if cuts is None else {"cuts": cuts}
    options: SplitOptions = {
        "protocol": GLOBAL_TIME,
        **division,
        "negatives": negatives,
        "seed": seed,
        "max_history": max_history,
    }
    if cuts is None:
        warn_of_positions(rows, dataset.name)
        cuts = time_cuts(rows[TIME], ratios, dataset.name)
    else:
        _refuse_empty_part(rows[TIME], cuts, dataset.name)
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
    extra = {"new_items": rows[ITEM].n_unique() - seen.len(), "cut_times": list(cuts)}
    return _with_candidates(
        dataset, train, valid, test, options, extra, catalogue.filter(catalogue.is_in(seen.implode()))
    )


_PROTOCOLS: dict[str, Callable[..., Split]] = {LEAVE_ONE_OUT: leave_one_out, GLOBAL_TIME: global_time}


def draw_split(dataset: Dataset, **options: Unpack[SplitOptions]) -> Split:
    """Draw a split by the name of its protocol (by default `leave-one-out`) and the arguments of its function.

    Raises:
        LorarecError: The protocol is unknown, an option is not one of it, or its function refuses the arguments.
    """
    protocol = options.pop("protocol", LEAVE_ONE_OUT)
    if protocol not in _PROTOCOLS:
        raise LorarecError(f"no protocol {protocol!r}: use one of {', '.join(_PROTOCOLS)}")
    draw = _PROTOCOLS[protocol]
    known = list(inspect.signature(draw).parameters)[1:]
    for name in options:
        if name not in known:
            raise LorarecError(f"option {name} is not for protocol {protocol}: use {', '.join(known)}")
    return draw(dataset, **options)


def load_split(dataset: Dataset, **options: Unpack[SplitOptions]) -> Split:
    """Load the split that is stored beside a dataset; draw and store it first if there is none.

    Args:
        dataset: The dataset. If it has no folder, or one that is not to be written to, such as one in the hub's cache,
            its split is drawn every time; the seed makes it the same every time.
        options: Arguments of `draw_split`. Without any the split in DATASET/split is loaded, whatever its options are.
            Options that differ from those of DATASET/split give a split in a folder of its own beside it.

    Raises:
        LorarecError: A stored split belongs to other data or is damaged.

    Examples:
        >>> from lorarec import load_sample, load_split
        >>> load_split(load_sample("action"), negatives=9).info["options"]["negatives"]
        9
    """
    if dataset.folder is None:
        return draw_split(dataset, **options)
    folder = dataset.folder / "split"
    if _stored(folder) and not _agrees(folder, options):
        given = cast(dict[str, object], options)
        folder = folder.with_name("-".join(["split", *(f"{key}={given[key]}" for key in sorted(given))]))
    if not _stored(folder):
        split = draw_split(dataset, **options)
        is_cached = HubId.of_folder(dataset.folder) is not None  # the hub's cache is not ours to change
        if is_cached or not os.access(dataset.folder, os.W_OK):
            return split
        try:
            split.save(folder)
        except LorarecError:
            if not _stored(folder):
                raise
            return load_split(dataset, **options)  # another process stored one at the same time
        return split
    split = Split.load(folder)
    if split.info["dataset"] != dataset.fingerprint:
        raise LorarecError(f"{folder} was drawn from other data: draw it again with `lorarec data split`")
    return split


def few_shot(split: Split, fraction: float, seed: int = 42) -> Split:
    """Keep a fraction of the training users, at least one, drawn uniformly; validation and test are unchanged.

    Raises:
        LorarecError: The fraction is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise LorarecError(f"the few-shot fraction must be above 0 and at most 1, got {fraction}")
    count = max(1, round(fraction * split.train.height))
    rows = np.random.default_rng(seed).permutation(split.train.height)[:count]
    train = split.train[np.sort(rows)]
    info = {**split.info, "few_shot": {"fraction": fraction, "seed": seed, "of": split.fingerprint}}
    info["counts"] = {**info["counts"], "train": train.height}
    info["fingerprint"] = content_hash(train, split.valid, *split.test.values())
    return replace(split, train=train, info=info)


def _refuse_empty_part(times: pl.Series, cuts: tuple[int, int], name: str) -> None:
    """Refuse cuts of which the training, validation or test part is empty.

    Raises:
        LorarecError: One is.
    """
    first, second = cuts
    if first >= second:
        raise LorarecError(
            f"{name}: the validation part begins at {moment_text(first)}, which is not before the test part at "
            f"{moment_text(second)}: give earlier and later times"
        )
    if not ((times < first).any() and ((times >= first) & (times < second)).any() and (times >= second).any()):
        least, most = (moment_text(int(each)) for each in (times.to_numpy().min(), times.to_numpy().max()))
        raise LorarecError(
            f"{name}: with the cuts {moment_text(first)} and {moment_text(second)} a part is empty: its timestamps are "
            f"from {least} to {most}: choose cuts between them"
        )


def time_cuts(times: pl.Series, ratios: tuple[float, float, float], name: str) -> tuple[int, int]:
    """Return the timestamps of the first validation event and of the first test event.

    Events at the moment of a cut belong to the later part.

    Args:
        times: The timestamps of all events, in any order.
        ratios: Sizes of the training, validation and test parts.
        name: The name of the dataset in error messages.

    Raises:
        LorarecError: The ratios are not three positive numbers, or a part is empty.
    """
    if len(ratios) != 3 or min(ratios) <= 0:
        raise LorarecError(f"option ratios must be three positive numbers, got {ratios}")
    times = times.sort()
    shares = np.cumsum(ratios)[:2] / sum(ratios)
    first, second = (int(times[int(times.len() * share)]) for share in shares) if times.len() else (0, 0)
    if not times.len() or not times[0] < first < second:
        raise LorarecError(f"{name}: too few distinct timestamps for a split by time; use leave-one-out")
    return first, second


def warn_of_positions(rows: pl.DataFrame, name: str) -> None:
    """Log a warning if the timestamps of interactions are positions that begin again for most of the users."""
    if rows[TIME].to_numpy().max() >= EARLIEST_MOMENT:
        return
    firsts = rows.group_by(USER).agg(pl.col(TIME).min())[TIME].to_numpy()
    if len(firsts) > 1 and np.mean(firsts == firsts.min()) > 0.5:
        logger.warning(
            "%s is divided by time, but its timestamps seem to be positions that begin again for each user, which do "
            "not say what was earlier among users",
            name,
        )


def histories_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return user_id and history (item ids), one row per user, from interactions that are sorted by user and time."""
    return rows.group_by(USER, maintain_order=True).agg(pl.col(ITEM).alias(HISTORY))


def _stored(folder: Path) -> bool:
    return (folder / "split.json").is_file()


def _agrees(folder: Path, options: SplitOptions) -> bool:
    stored = read_json(folder / "split.json").get("options", {})
    wanted = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    return all(stored.get(key) == value for key, value in wanted.items())


def _new_items(dataset: Dataset, share: float, seed: int) -> pl.Series:
    items = dataset.interactions[ITEM].unique().sort()
    count = max(1, round(share * items.len())) if share else 0
    return items[np.sort(_stream(seed, "new items").permutation(items.len())[:count])]


def _stream(seed: int, purpose: str) -> np.random.Generator:
    """Return a generator for one purpose, so that a change of one draw does not change the others."""
    return np.random.default_rng([seed, *purpose.encode()])


def _targets(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(USER, pl.col(ITEM).alias(TARGET))


def _join(targets: pl.DataFrame, histories: pl.DataFrame) -> pl.DataFrame:
    return targets.join(histories, on=USER, maintain_order="left").select(USER, HISTORY, TARGET)


def _window_cases(rows: pl.DataFrame, part: int, max_history: int) -> pl.DataFrame:
    """Return a case for every interaction of a part that has earlier ones by its user.

    Args:
        rows: All interactions; `index` is the number of the row and `place` its position in the user's history.
        part: The number of the part.
        max_history: Number of latest items in a history.
    """
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
    options: SplitOptions,
    extra_counts: dict[str, Any],
    valid_catalogue: pl.Series,
) -> Split:
    """Draw the candidates of all cases and return the finished split.

    Args:
        dataset: The dataset that is divided.
        train: The training histories.
        valid: The validation cases, without candidates.
        test: The test cases of each setting, without candidates.
        options: The options, which are recorded.
        extra_counts: Further counts to record.
        valid_catalogue: The items from which candidates of validation cases are drawn.
    """
    if options["negatives"] < 1:
        raise LorarecError(f"a candidate set needs at least one negative, got {options['negatives']}")
    seed, negatives, interactions = options["seed"], options["negatives"], dataset.interactions

    def drawn(cases: pl.DataFrame, catalogue: pl.Series, purpose: str) -> pl.DataFrame:
        return draw_candidates(cases, interactions, catalogue, negatives, _stream(seed, purpose)).select(_CASE_COLUMNS)

    frames = [valid, *test.values()]
    cases, users = sum(frame.height for frame in frames), pl.concat(frame[USER] for frame in frames).unique()
    valid = drawn(valid, valid_catalogue, "valid")
    test = {setting: drawn(frame, dataset.items[ITEM], setting) for setting, frame in test.items()}
    sizes = {"valid": valid.height} | {f"test {setting}": frame.height for setting, frame in test.items()}
    if cases and not sum(sizes.values()):
        raise LorarecError(
            f"{dataset.name}: no user left {negatives} items untouched: lower option negatives of the split (`lorarec "
            "data split`) or use more items"
        )
    counts = {"train": train.height} | sizes | extra_counts
    counts["cases_without_negatives"] = cases - sum(sizes.values())
    left = pl.concat(frame[USER] for frame in (valid, *test.values())).unique()
    counts["users_without_negatives"] = len(users) - len(left)
    recorded = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    info = {
        "options": recorded,
        "settings": list(test),
        "counts": counts,
        "dataset": dataset.fingerprint,
        "fingerprint": content_hash(train, valid, *test.values()),
    }
    return Split(train, valid, test, info)
