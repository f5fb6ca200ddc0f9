"""Rows of rankers over the same test cases: figures, intervals, tests and time."""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from lorarec.artefacts import new_folder, versions
from lorarec.data import Dataset, Split
from lorarec.data.columns import CANDIDATES, HISTORY, TARGET, USER
from lorarec.data.content_hash import content_hash
from lorarec.errors import LorarecError
from lorarec.evaluation.baselines import INFORMED, baseline_rows
from lorarec.evaluation.report import write_report
from lorarec.evaluation.result import CUTOFFS, FIGURES, LEVEL, Evaluation, Figure, RowResult, Scorer, SettingResult
from lorarec.metrics import bootstrap_interval, hit_rate, ndcg, paired_t_test, reciprocal_rank, target_ranks


def evaluate(
    dataset: Dataset,
    split: Split,
    rows: Mapping[str, Scorer],
    *,
    settings: Sequence[str] | None = None,
    compare_with: str | None = None,
    out: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = True,
    overwrite: bool = False,
) -> Evaluation:
    """Rank the stored candidate sets of test cases by every row and by the baselines.

    Every row gets the same frame of cases, without the targets; that a row left it as it was is checked by its hash.

    Args:
        dataset: where titles come from.
        split: holds the test cases with their candidate sets.
        rows: name -> scorer.
        settings: of the split's test parts; those that have cases when None.
        compare_with: the row that paired t-tests compare with; in each setting the best baseline by NDCG@1 when
            None.
        out: a folder to write metrics.json, report.md and ndcg.png into.
        limit: evaluate so many users of each setting, drawn by the seed; a larger limit keeps those of a smaller one.
        seed: of the sample of users, the intervals and the row `random`.
        progress: tell of each row on standard error as soon as it is done.
        overwrite: replace what is at `out`.

    Raises:
        LorarecError: an unknown or empty setting, an unknown row to compare with, a row with a baseline's name, `out`
            exists, or a row gave a NaN, too few or too many scores.
    """
    baselines = baseline_rows(dataset, split, seed)
    if taken := sorted(baselines.keys() & rows.keys()):
        raise LorarecError(f"the row name {taken[0]} is taken by a baseline: choose another")
    everything = {**baselines, **rows}
    if compare_with is not None and compare_with not in everything:
        raise LorarecError(f"no row {compare_with} to compare with: choose one of {', '.join(everything)}")
    if limit is not None and limit < 1:
        raise LorarecError(f"the limit must be at least one user, not {limit}")
    chosen = {name: sampled_users(split.test[name], limit, seed) for name in tested_settings(dataset, split, settings)}
    protocol = {
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "split": {"fingerprint": split.fingerprint, "options": split.info["options"]},
        "limit": limit,
        "seed": seed,
        "versions": versions(),
    }
    console = Console(stderr=True, quiet=not progress, highlight=False)
    with new_folder(out, overwrite) if out is not None else nullcontext() as folder:
        results = {}
        for setting, cases in chosen.items():
            results[setting] = _evaluate_setting(setting, cases, everything, compare_with, seed, console)
        evaluation = Evaluation(protocol, results)
        if folder is not None:
            write_report(evaluation, folder)
    return evaluation


def tested_settings(dataset: Dataset, split: Split, settings: Sequence[str] | None) -> Sequence[str]:
    """The named settings, or those that have cases when None.

    Raises:
        LorarecError: a setting is unknown or has no cases, or none has any.
    """
    filled = [name for name, cases in split.test.items() if cases.height]
    if settings is None:
        if not filled:
            raise LorarecError(f"dataset {dataset.name} has no test cases: draw another split with `lorarec split`")
        return filled
    for name in settings:
        if name not in split.test:
            raise LorarecError(f"dataset {dataset.name} has no setting {name}: choose from {', '.join(split.test)}")
        if name not in filled:
            raise LorarecError(f"setting {name} of dataset {dataset.name} has no cases")
    return settings


def sampled_users(cases: pl.DataFrame, limit: int | None, seed: int) -> pl.DataFrame:
    """The cases of `limit` users, drawn by the seed, in their order; all cases when None or where users are fewer."""
    users = cases[USER].unique().sort()
    if limit is None or limit >= len(users):
        return cases
    drawn = users[np.random.default_rng(seed).permutation(len(users))[:limit]]
    return cases.filter(pl.col(USER).is_in(drawn.implode()))


def _evaluate_setting(
    setting: str, cases: pl.DataFrame, rows: Mapping[str, Scorer], compare_with: str | None, seed: int, console: Console
) -> SettingResult:
    shown = cases.select(USER, HISTORY, CANDIDATES)
    fingerprint = content_hash(shown)
    targets = _target_index(setting, cases)
    ranks: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    for name, scorer in rows.items():
        given = shown.clone()
        began = time.perf_counter()
        scores = scorer(given)
        seconds[name] = (time.perf_counter() - began) / cases.height
        if content_hash(given) != fingerprint:
            raise LorarecError(f"row {name}, setting {setting}: the scorer changed the cases it was given")
        places = getattr(scorer, "gives_places", False)
        ranks[name] = _ranks(f"row {name}, setting {setting}", scores, shown, targets, places)
        mean = ndcg(ranks[name], 1).mean()
        console.print(
            f"{setting}: {name} NDCG@1 {mean:.3f} ({cases.height:,} cases, {seconds[name] * cases.height:.1f} s)",
            markup=False,
        )
    if compare_with is None:
        compare_with = max(INFORMED, key=lambda name: ndcg(ranks[name], 1).mean())
    figures = _figures(ranks, compare_with, seed)
    results = {
        name: RowResult(name, ranks[name], figures[name], seconds[name], str(getattr(scorer, "about", "")))
        for name, scorer in rows.items()
    }
    return SettingResult(setting, cases.height, cases[USER].n_unique(), fingerprint, compare_with, results)


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


def _figures(ranks: Mapping[str, np.ndarray], compare_with: str, seed: int) -> dict[str, dict[str, Figure]]:
    """Figures of all rows, whose intervals share the resampled cases."""
    values = {name: _values(of_row) for name, of_row in ranks.items()}
    low, high = bootstrap_interval(np.concatenate(list(values.values()), axis=1), LEVEL, seed=seed)
    shape = (len(values), len(FIGURES))
    figures: dict[str, dict[str, Figure]] = {}
    for (name, table), lows, highs in zip(values.items(), low.reshape(shape), high.reshape(shape), strict=True):
        figures[name] = {
            figure: Figure(
                mean=float(table[:, k].mean()),
                low=float(lows[k]),
                high=float(highs[k]),
                p=None if name == compare_with else paired_t_test(table[:, k], values[compare_with][:, k]),
            )
            for k, figure in enumerate(FIGURES)
        }
    return figures


def _values(ranks: np.ndarray) -> np.ndarray:
    """(cases, figures) of one row, in the order of `FIGURES`."""
    gains = [ndcg(ranks, k) for k in CUTOFFS]
    hits = [hit_rate(ranks, k) for k in CUTOFFS]
    return np.stack([*gains, *hits, reciprocal_rank(ranks)], axis=1)
