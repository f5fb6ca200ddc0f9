"""Ranks of the targets under one scorer, and metrics of ranks with intervals and tests."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from lorarec.data import CANDIDATES, HISTORY, TARGET, USER, content_hash
from lorarec.errors import LorarecError
from lorarec.evaluation.result import LEVEL, METRIC_NAMES, MetricResult
from lorarec.metrics import bootstrap_interval, hit_rate, ndcg, paired_t_test, reciprocal_rank, target_ranks
from lorarec.recommenders import Scorer


def scorer_inputs(cases: pl.DataFrame) -> pl.DataFrame:
    """Return the cases without their targets."""
    return cases.select(USER, HISTORY, CANDIDATES)


def measure_target_ranks(name: str, scorer: Scorer, setting: str, cases: pl.DataFrame) -> tuple[np.ndarray, float]:
    """Score the cases by a scorer, which gets them without their targets, and rank the targets.

    Args:
        name: Name of the scorer, for error messages.
        setting: Name of the setting, for error messages.

    Returns:
        Rank of the target in every case, (cases,), and seconds per case.

    Raises:
        LorarecError: The scorer changed the cases, or returned a NaN, too few or too many scores, or a rank below 1.
    """
    where = f"row {name}, setting {setting}"
    targets = _target_positions(setting, cases)
    expected = scorer_inputs(cases)
    given = expected.clone()
    began = time.perf_counter()
    scores = scorer.score(given)
    seconds = (time.perf_counter() - began) / cases.height
    if content_hash(given) != content_hash(expected):
        raise LorarecError(f"{where}: the scorer changed the cases it was given")
    return ranks_of_places(where, scorer, check_scores(where, scores, expected), targets), seconds


def ranks_of_places(where: str, scorer: Scorer, scores: Sequence[np.ndarray], places: np.ndarray) -> np.ndarray:
    """Return the ranks of the targets (cases,).

    Args:
        where: Names of row and setting, for error messages.
        scorer: Scorer that gave the scores.
        scores: Scores, or ranks if the scorer returns ranks, of the candidates of each case.
        places: Positions of the targets among the candidates, (cases,).

    Raises:
        LorarecError: A score is NaN, or the rank of a target is no rank.
    """
    if getattr(scorer, "returns_ranks", False):
        ranks = np.array([array[place] for array, place in zip(scores, places, strict=True)])
        wrong = ~(ranks >= 1)
        if wrong.any():
            case = int(wrong.argmax())
            raise LorarecError(f"{where}: case {case}: the target has the rank {ranks[case]:g}, but 1 is the best")
        return ranks
    try:
        return target_ranks(scores, places)
    except LorarecError as error:
        raise LorarecError(f"{where}: {error}") from error


def _target_positions(setting: str, cases: pl.DataFrame) -> np.ndarray:
    """Return the position of each target among its candidates, (cases,)."""
    positions = []
    for user, target, candidates in cases.select(USER, TARGET, CANDIDATES).iter_rows():
        if target not in candidates:
            raise LorarecError(f"setting {setting}: the target {target} of user {user} is not among the candidates")
        positions.append(candidates.index(target))
    return np.array(positions, dtype=np.int64)


def check_scores(where: str, scores: Sequence[npt.ArrayLike], cases: pl.DataFrame) -> list[np.ndarray]:
    """Return the scores of each case as an array.

    Raises:
        LorarecError: There are too few or too many scores.
    """
    if len(scores) != cases.height:
        raise LorarecError(f"{where}: scores of {len(scores)} cases for {cases.height} cases")
    arrays = [np.asarray(each, dtype=np.float64) for each in scores]
    for user, array, size in zip(cases[USER], arrays, cases[CANDIDATES].list.len(), strict=True):
        if array.shape != (size,):
            raise LorarecError(f"{where}: user {user} has scores of shape {array.shape} for {size} candidates")
    return arrays


def metric_results(
    values: Mapping[str, np.ndarray],
    compare_with: Mapping[str, str | None],
    seed: int,
    names: Sequence[str] = METRIC_NAMES,
) -> dict[str, dict[str, MetricResult]]:
    """Return the metrics of all rows; their intervals share the resampled cases.

    Args:
        values: Metrics of each row, (cases, metrics), as `metrics_per_case` returns them, or their means over seeds.
        compare_with: For each row, the row that its paired t-tests compare with; None for no test.
        seed: Seed of the resampling.
        names: Names of the metrics.
    """
    low, high = bootstrap_interval(np.concatenate(list(values.values()), axis=1), LEVEL, seed=seed)
    shape = (len(values), len(names))
    results: dict[str, dict[str, MetricResult]] = {}
    for (name, table), lows, highs in zip(values.items(), low.reshape(shape), high.reshape(shape), strict=True):
        other = compare_with[name]
        results[name] = {
            metric: MetricResult(
                mean=float(table[:, k].mean()),
                low=float(lows[k]),
                high=float(highs[k]),
                p=None if other is None else paired_t_test(table[:, k], values[other][:, k]),
            )
            for k, metric in enumerate(names)
        }
    return results


def metrics_per_case(ranks: np.ndarray, names: Sequence[str] = METRIC_NAMES) -> np.ndarray:
    """Return the metrics of each case, (cases, metrics).

    Args:
        ranks: Rank of each target, (cases,); 1 is best, infinite is a target without a rank.
        names: Names of the metrics. With one target item for each case, `recall` and `hr` are the same.
    """
    return np.stack([_metric(ranks, *name.split("@")) for name in names], axis=1)


def _metric(ranks: np.ndarray, name: str, k: str = "") -> np.ndarray:
    if name == "mrr":
        return reciprocal_rank(ranks)
    return ndcg(ranks, int(k)) if name == "ndcg" else hit_rate(ranks, int(k))
