"""One row over the cases of one setting: what it is shown, the ranks it gives, and figures of ranks."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from lorarec.data import CANDIDATES, HISTORY, TARGET, USER, content_hash
from lorarec.errors import LorarecError
from lorarec.evaluation.result import CUTOFFS, LEVEL, METRIC_NAMES, MetricResult
from lorarec.metrics import bootstrap_interval, hit_rate, ndcg, paired_t_test, reciprocal_rank, target_ranks
from lorarec.recommenders import Scorer


def scorer_inputs(cases: pl.DataFrame) -> pl.DataFrame:
    """The cases without their targets."""
    return cases.select(USER, HISTORY, CANDIDATES)


def target_ranks_of(name: str, scorer: Scorer, setting: str, cases: pl.DataFrame) -> tuple[np.ndarray, float]:
    """Let a row score the cases, without their targets.

    Returns:
        Rank of the target in every case, (cases,), and seconds per case.

    Raises:
        LorarecError: the row changed the cases, or gave a NaN, too few or too many scores.
    """
    where = f"row {name}, setting {setting}"
    targets = _target_index(setting, cases)
    shown = scorer_inputs(cases)
    given = shown.clone()
    began = time.perf_counter()
    scores = scorer.score(given)
    seconds = (time.perf_counter() - began) / cases.height
    if content_hash(given) != content_hash(shown):
        raise LorarecError(f"{where}: the scorer changed the cases it was given")
    return _ranks(where, scores, shown, targets, getattr(scorer, "returns_ranks", False)), seconds


def _target_index(setting: str, cases: pl.DataFrame) -> np.ndarray:
    places = []
    for user, target, candidates in cases.select(USER, TARGET, CANDIDATES).iter_rows():
        if target not in candidates:
            raise LorarecError(f"setting {setting}: the target {target} of user {user} is not among the candidates")
        places.append(candidates.index(target))
    return np.array(places, dtype=np.int64)


def _ranks(
    where: str, scores: Sequence[Any], cases: pl.DataFrame, targets: np.ndarray, places: bool = False
) -> np.ndarray:
    """Check what a row gave and turn it into ranks of the target, (cases,)."""
    if len(scores) != cases.height:
        raise LorarecError(f"{where}: scores of {len(scores)} cases for {cases.height} cases")
    arrays = [np.asarray(each, dtype=np.float64) for each in scores]
    wanted = cases[CANDIDATES].list.len()
    for user, array, size in zip(cases[USER], arrays, wanted, strict=True):
        if array.shape != (size,):
            raise LorarecError(f"{where}: user {user} has scores of shape {array.shape} for {size} candidates")
    if places:
        return np.array([array[target] for array, target in zip(arrays, targets, strict=True)])
    try:
        return target_ranks(arrays, targets)
    except LorarecError as error:
        raise LorarecError(f"{where}: {error}") from error


def metric_results(
    values: Mapping[str, np.ndarray], compare_with: Mapping[str, str | None], seed: int
) -> dict[str, dict[str, MetricResult]]:
    """Figures of all rows, whose intervals share the resampled cases.

    Args:
        values: row -> (cases, figures) as `metrics_per_case` gives, or means of such over seeds.
        compare_with: row -> the row that its paired t-tests compare with; None for no test.
        seed: of the resampling.
    """
    low, high = bootstrap_interval(np.concatenate(list(values.values()), axis=1), LEVEL, seed=seed)
    shape = (len(values), len(METRIC_NAMES))
    figures: dict[str, dict[str, MetricResult]] = {}
    for (name, table), lows, highs in zip(values.items(), low.reshape(shape), high.reshape(shape), strict=True):
        other = compare_with[name]
        figures[name] = {
            figure: MetricResult(
                mean=float(table[:, k].mean()),
                low=float(lows[k]),
                high=float(highs[k]),
                p=None if other is None else paired_t_test(table[:, k], values[other][:, k]),
            )
            for k, figure in enumerate(METRIC_NAMES)
        }
    return figures


def metrics_per_case(ranks: np.ndarray) -> np.ndarray:
    """(cases, figures) of one row, in the order of `METRIC_NAMES`."""
    gains = [ndcg(ranks, k) for k in CUTOFFS]
    hits = [hit_rate(ranks, k) for k in CUTOFFS]
    return np.stack([*gains, *hits, reciprocal_rank(ranks)], axis=1)
