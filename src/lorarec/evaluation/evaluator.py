"""Evaluation of recommenders on the same test cases: metrics, intervals, tests and time."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console

from lorarec.data import USER, Dataset, Split, content_hash, load_split
from lorarec.errors import LorarecError
from lorarec.evaluation.case_metrics import measure_target_ranks, metric_results, metrics_per_case, scorer_inputs
from lorarec.evaluation.corrections import correct_rows
from lorarec.evaluation.report import write_report
from lorarec.evaluation.result import REPORT_METRICS, Evaluation, RowResult, SettingResult
from lorarec.io import FolderKind, new_folder, versions
from lorarec.metrics import Correction, check_correction, ndcg
from lorarec.recommenders import INFORMED_BASELINES, Scorer, TrainingData, fit_baselines


def evaluate(
    dataset: Dataset,
    scorers: Mapping[str, Scorer],
    *,
    split: Split | None = None,
    settings: Sequence[str] | None = None,
    compare_with: str | None = None,
    correction: Correction = "holm",
    limit: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = False,
    overwrite: bool = False,
) -> Evaluation:
    """Rank the candidate sets of the test cases by every scorer and by the baselines, and compute metrics of the ranks.

    Every scorer gets the same frame of cases without the targets; a hash checks that it did not change the frame.

    Args:
        dataset: Dataset that the titles come from.
        scorers: Scorers by name of their row in the table; the baselines are further rows.
        split: Split with the test cases and their candidate sets; by default the one that is stored with the dataset,
            or the default one.
        settings: Names of the split's test settings; by default all that have cases.
        compare_with: Name of the row that paired t-tests compare with; by default the best baseline by NDCG@1 of each
            setting.
        correction: Correction of the p-values of each table for the number of its tests: `holm`, or
            `benjamini-hochberg` (see `lorarec.metrics.adjust_p_values`).
        limit: Number of users of each setting, drawn by the seed; a larger number keeps the users of a smaller one. By
            default all users.
        seed: Seed of the sample of users, of the intervals and of the baseline `random`.
        out: Folder to write metrics.json, report.md and ndcg.png into.
        progress: Print a line on standard error about each row when it is done.
        overwrite: Replace the folder `out` if it exists.

    Returns:
        The evaluation: metrics with intervals by setting and row.

    Raises:
        LorarecError: A setting is unknown or empty, `compare_with` or `correction` is unknown, a scorer has the name of
            a baseline, `out` exists, or a scorer returned a NaN, too few or too many scores.

    Examples:
        >>> from lorarec import Backbone, Dataset, adapter_scorers, evaluate, load_split
        >>> shop = Dataset.load("data/shop")
        >>> backbone = Backbone.from_pretrained("embedded")
        >>> scorers = adapter_scorers(backbone, shop, load_split(shop), {"shop": "adapters/shop"})
        >>> evaluation = evaluate(shop, scorers, settings=["warm"], limit=5)
        >>> "shop" in evaluation.settings["warm"].rows
        True
    """
    check_correction(correction)
    split = load_split(dataset) if split is None else split
    baselines = fit_baselines(TrainingData(dataset, split, seed=seed))
    if taken := sorted(baselines.keys() & scorers.keys()):
        raise LorarecError(f"the row name {taken[0]} is taken by a baseline: choose another")
    everything: dict[str, Scorer] = {**baselines, **scorers}
    if compare_with is not None and compare_with not in everything:
        raise LorarecError(f"no row {compare_with!r} to compare with: choose one of {', '.join(everything)}")
    if limit is not None and limit < 1:
        raise LorarecError(f"the limit must be at least one user, got {limit}")
    chosen = {name: sample_users(split.test[name], limit, seed) for name in select_settings(dataset, split, settings)}
    protocol = {
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "split": {"fingerprint": split.fingerprint, "options": split.info["options"]},
        "limit": limit,
        "seed": seed,
        "versions": versions(),
    }
    console = Console(stderr=True, quiet=not progress, highlight=False)
    with new_folder(out, overwrite, FolderKind.EVALUATION) if out is not None else nullcontext() as folder:
        results = {}
        for setting, cases in chosen.items():
            results[setting] = _evaluate_setting(setting, cases, everything, compare_with, correction, seed, console)
        evaluation = Evaluation(protocol, results)
        if folder is not None:
            write_report(evaluation, folder)
    return evaluation


def select_settings(dataset: Dataset, split: Split, settings: Sequence[str] | None) -> Sequence[str]:
    """Return the given settings, or all settings of the split that have cases.

    Raises:
        LorarecError: A setting is unknown or has no cases, or no setting has any.
    """
    filled = [name for name, cases in split.test.items() if cases.height]
    if settings is None:
        if not filled:
            raise LorarecError(f"dataset {dataset.name} has no test cases: draw another split")
        return filled
    for name in settings:
        if name not in split.test:
            raise LorarecError(f"dataset {dataset.name} has no setting {name!r}: choose from {', '.join(split.test)}")
        if name not in filled:
            raise LorarecError(f"setting {name} of dataset {dataset.name} has no cases")
    return settings


def sample_users(cases: pl.DataFrame, limit: int | None, seed: int) -> pl.DataFrame:
    """Return the cases of `limit` users, drawn by the seed, in their order; all cases if there are no more users."""
    users = cases[USER].unique().sort()
    if limit is None or limit >= len(users):
        return cases
    drawn = users[np.random.default_rng(seed).permutation(len(users))[:limit]]
    return cases.filter(pl.col(USER).is_in(drawn.implode()))


def _evaluate_setting(
    setting: str,
    cases: pl.DataFrame,
    scorers: Mapping[str, Scorer],
    compare_with: str | None,
    correction: Correction,
    seed: int,
    console: Console,
) -> SettingResult:
    ranks: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    for name, scorer in scorers.items():
        ranks[name], seconds[name] = measure_target_ranks(name, scorer, setting, cases)
        mean = ndcg(ranks[name], 1).mean()
        console.print(
            f"{setting}: {name} NDCG@1 {mean:.3f} ({cases.height:,} cases, {seconds[name] * cases.height:.1f} s)",
            markup=False,
        )
    if compare_with is None:
        compare_with = max(INFORMED_BASELINES, key=lambda name: ndcg(ranks[name], 1).mean())
    others = {name: None if name == compare_with else compare_with for name in scorers}
    metrics = metric_results({name: metrics_per_case(each) for name, each in ranks.items()}, others, seed)
    metrics = correct_rows(metrics, REPORT_METRICS, correction)
    results = {
        name: RowResult(name, ranks[name], metrics[name], seconds[name], str(getattr(scorer, "about", "")))
        for name, scorer in scorers.items()
    }
    hashed = content_hash(scorer_inputs(cases))
    return SettingResult(setting, cases.height, cases[USER].n_unique(), hashed, compare_with, results, correction)
