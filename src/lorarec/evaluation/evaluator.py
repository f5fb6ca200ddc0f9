"""Rows of rankers over the same test cases: figures, intervals, tests and time."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console

from lorarec.data import USER, Dataset, Split, content_hash
from lorarec.errors import LorarecError
from lorarec.evaluation.case_metrics import metric_results, metrics_per_case, scorer_inputs, target_ranks_of
from lorarec.evaluation.report import write_report
from lorarec.evaluation.result import Evaluation, RowResult, SettingResult
from lorarec.io import EVALUATION, new_folder, versions
from lorarec.metrics import ndcg
from lorarec.recommenders import INFORMED_BASELINES, Scorer, TrainingData, fit_baselines


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
    baselines = fit_baselines(TrainingData(dataset, split, seed=seed))
    if taken := sorted(baselines.keys() & rows.keys()):
        raise LorarecError(f"the row name {taken[0]} is taken by a baseline: choose another")
    everything: dict[str, Scorer] = {**baselines, **rows}
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
    with new_folder(out, overwrite, EVALUATION) if out is not None else nullcontext() as folder:
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
    ranks: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    for name, scorer in rows.items():
        ranks[name], seconds[name] = target_ranks_of(name, scorer, setting, cases)
        mean = ndcg(ranks[name], 1).mean()
        console.print(
            f"{setting}: {name} NDCG@1 {mean:.3f} ({cases.height:,} cases, {seconds[name] * cases.height:.1f} s)",
            markup=False,
        )
    if compare_with is None:
        compare_with = max(INFORMED_BASELINES, key=lambda name: ndcg(ranks[name], 1).mean())
    others = {name: None if name == compare_with else compare_with for name in rows}
    figures = metric_results({name: metrics_per_case(of_row) for name, of_row in ranks.items()}, others, seed)
    results = {
        name: RowResult(name, ranks[name], figures[name], seconds[name], str(getattr(scorer, "about", "")))
        for name, scorer in rows.items()
    }
    hashed = content_hash(scorer_inputs(cases))
    return SettingResult(setting, cases.height, cases[USER].n_unique(), hashed, compare_with, results)
