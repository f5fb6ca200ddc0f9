"""Evaluation of recommenders on the same test cases: metrics, intervals, tests and time."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
from rich.console import Console

from lorarec.data import USER, Dataset, Split, load_split
from lorarec.errors import LorarecError
from lorarec.evaluation.case_metrics import metric_results, metrics_per_case
from lorarec.evaluation.catalogue import CaseRanking, Catalogue, hash_candidates, rank_cases, without_repeats
from lorarec.evaluation.corrections import correct_rows
from lorarec.evaluation.report import write_report
from lorarec.evaluation.result import (
    MAIN_METRIC,
    METRICS_OF,
    REPORT_METRICS,
    Candidates,
    Evaluation,
    RowResult,
    SettingResult,
)
from lorarec.io import FolderKind, new_folder, versions
from lorarec.metrics import Correction, check_correction
from lorarec.ranking import Fusion
from lorarec.recommenders import INFORMED_BASELINES, Scorer, TrainingData, fit_baselines


def evaluate(
    dataset: Dataset,
    scorers: Mapping[str, Scorer],
    *,
    split: Split | None = None,
    settings: Sequence[str] | None = None,
    candidates: Candidates = "stored",
    compare_with: str | None = None,
    correction: Correction = "holm",
    limit: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = False,
    overwrite: bool = False,
) -> Evaluation:
    """Rank the candidates of the test cases by every scorer and by the baselines, and compute metrics of the ranks.

    Every scorer gets the same frame of cases without the targets; it is checked that it did not change the frame. Over
    the whole catalogue, wrap scorers that are too slow to score all items into a `PoolScorer`. A whole catalogue is
    scored in slices of the cases, so the prior `auto` of a fusion is the share of new items in the catalogue there.

    Args:
        dataset: Dataset that the titles come from.
        scorers: Scorers by name of their row in the table; the baselines are further rows.
        split: Split with the test cases and their candidate sets; by default the one that is stored with the dataset,
            or the default one.
        settings: Names of the split's test settings; by default all that have cases.
        candidates: `stored` for the candidate sets of the split, or `all` for every item of the catalogue that is not
            in the history of a case.
        compare_with: Name of the row that paired t-tests compare with; by default the best baseline of each setting by
            NDCG@1, or by NDCG@10 over the whole catalogue.
        correction: Correction of the p-values of each table for the number of its tests: `holm`, or
            `benjamini-hochberg` (see `lorarec.metrics.adjust_p_values`).
        limit: Number of users of each setting, drawn by the seed; a larger number keeps the users of a smaller one. By
            default all users.
        seed: Seed of the sample of users, of the intervals, of the baseline `random`, and of the order in which items
            of the catalogue with the same score rank.
        out: Folder to write metrics.json, report.md and ndcg.png into.
        progress: Print a line on standard error about each row when it is done.
        overwrite: Replace the folder `out` if it exists.

    Returns:
        The evaluation: metrics with intervals by setting and row.

    Raises:
        LorarecError: A setting is unknown or empty, `candidates`, `compare_with` or `correction` is unknown, a scorer
            has the name of a baseline, `out` exists, or a scorer returned a NaN, too few or too many scores.

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
    if candidates not in get_args(Candidates):
        raise LorarecError(f"no candidates {candidates!r}: choose one of {', '.join(get_args(Candidates))}")
    split = load_split(dataset) if split is None else split
    baselines = fit_baselines(TrainingData(dataset, split, seed=seed))
    if taken := sorted(baselines.keys() & scorers.keys()):
        raise LorarecError(f"the row name {taken[0]} is taken by a baseline: choose another")
    everything: dict[str, Scorer] = {**baselines, **scorers}
    if candidates == "all":
        everything |= {name: each.with_fixed_prior() for name, each in scorers.items() if isinstance(each, Fusion)}
    if compare_with is not None and compare_with not in everything:
        raise LorarecError(f"no row {compare_with!r} to compare with: choose one of {', '.join(everything)}")
    if limit is not None and limit < 1:
        raise LorarecError(f"the limit must be at least one user, got {limit}")
    chosen = {name: sample_users(split.test[name], limit, seed) for name in select_settings(dataset, split, settings)}
    protocol = {
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "split": {"fingerprint": split.fingerprint, "options": split.info["options"]},
        "candidates": candidates,
        "limit": limit,
        "seed": seed,
        "versions": versions(),
    }
    catalogue = Catalogue(dataset, split, seed) if candidates == "all" else None
    with new_folder(out, overwrite, FolderKind.EVALUATION) if out is not None else nullcontext() as folder:
        results = {}
        for setting, cases in chosen.items():
            results[setting] = _evaluate_setting(
                setting, cases, everything, catalogue, compare_with, correction, seed, progress
            )
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
    catalogue: Catalogue | None,
    compare_with: str | None,
    correction: Correction,
    seed: int,
    progress: bool,
) -> SettingResult:
    kind: Candidates = "stored" if catalogue is None else "all"
    names, main = METRICS_OF[kind], MAIN_METRIC[kind]
    given = cases
    if catalogue is not None:
        cases = without_repeats(setting, cases)
    console = Console(stderr=True, quiet=not progress, highlight=False)
    found: dict[str, CaseRanking] = {}
    about: dict[str, str] = {}
    for name, scorer in scorers.items():
        found[name] = ranking = rank_cases(name, scorer, setting, cases, catalogue, progress)
        about[name] = str(getattr(scorer, "about", ""))
        mean = metrics_per_case(ranking.ranks, [main]).mean()
        console.print(
            f"{setting}: {name} {main.upper()} {mean:.3f} ({cases.height:,} cases, "
            f"{ranking.seconds * cases.height:.1f} s)",
            markup=False,
        )
    values = {name: metrics_per_case(ranking.ranks, names) for name, ranking in found.items()}
    if compare_with is None:
        compare_with = max(INFORMED_BASELINES, key=lambda name: values[name][:, names.index(main)].mean())
    others = {name: None if name == compare_with else compare_with for name in scorers}
    metrics = metric_results(values, others, seed, names)
    metrics = correct_rows(metrics, REPORT_METRICS if kind == "stored" else names, correction)
    results = {
        name: RowResult(
            name,
            found[name].ranks,
            metrics[name],
            found[name].seconds,
            about[name],
            found[name].properties,
        )
        for name in scorers
    }
    users, hashed = cases[USER].n_unique(), hash_candidates(cases, catalogue)
    size, repeats = (None, 0) if catalogue is None else (len(catalogue.items), given.height - cases.height)
    return SettingResult(setting, cases.height, users, hashed, compare_with, results, correction, size, repeats)
