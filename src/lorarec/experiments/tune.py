"""Random search over the options of a row, judged on validation cases."""

import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lorarec.errors import LorarecError
from lorarec.experiments.recipe import RowConfig
from lorarec.experiments.registry import RECOMMENDERS
from lorarec.experiments.row_key import recorded_key, row_key
from lorarec.io import JsonObject, read_json, write_json
from lorarec.recommenders import Recommender, TrainingData


@dataclass(frozen=True)
class Fit:
    """A fitted recommender.

    Attributes:
        scorer: Fitted recommender.
        seconds: Duration of fitting in seconds.
    """

    scorer: Recommender[Any]
    seconds: float


def tune(row: RowConfig, num_trials: int, data: TrainingData, trials_file: Path) -> tuple[list[JsonObject], Fit | None]:
    """Fit a row with different random combinations of the values that its options may have.

    Args:
        row: Row with values to try.
        num_trials: Number of trials; all combinations are tried if there are fewer.
        data: Data to fit on. Its seed draws the combinations, and NDCG@10 on its validation cases judges them.
        trials_file: JSON file of the trials so far, also those with other seeds; they are not repeated.

    Returns:
        The trials (options, NDCG@10), the best one first and of equal ones the one drawn first; and the fit of the best
        trial, or None if it was not fitted in this call.

    Raises:
        LorarecError: No trial could be fitted.
    """
    grid = [dict(zip(row.tune, values, strict=True)) for values in product(*row.tune.values())]
    drawn = np.random.default_rng(data.seed).permutation(len(grid))[:num_trials]
    done: list[JsonObject] = read_json(trials_file) if trials_file.exists() else []
    trials: list[JsonObject] = []
    best: Fit | None = None
    for place in drawn:
        options = row.options | grid[place]
        key = {"seed": data.seed, "made_from": _made_from(row.system, options)}
        trial, fit = next((each for each in done if _recorded(each) == key), None), None
        if trial is None:
            outcome, fit = _run_trial(row.system, options, data)
            trial = {"system": row.system, "options": options, **key, **outcome}
            done.append(trial)
            write_json(trials_file, done)
        trials.append(trial)
        if max(trials, key=_metric) is trial:
            best = fit
    trials.sort(key=_metric, reverse=True)
    if trials[0]["ndcg@10"] is None:
        raise LorarecError(f"none of {len(trials)} trials could be fitted: {trials[0]['failed']}")
    return trials, best


def _made_from(system: str, options: JsonObject) -> JsonObject | None:
    """Return the `row_key` of a trial; None if its options do not go together, so that the trial fails."""
    try:
        return row_key(system, options)
    except LorarecError:
        return None


def _recorded(trial: JsonObject) -> JsonObject:
    """Return the seed and the `row_key` of a recorded trial; of version 0.1.0, only the options are recorded."""
    try:
        return {"seed": trial["seed"], "made_from": recorded_key(trial.get("made_from") or trial)}
    except LorarecError:
        return {"seed": trial["seed"], "made_from": None}


def _metric(trial: JsonObject) -> float:
    return -1 if trial["ndcg@10"] is None else trial["ndcg@10"]


def _run_trial(system: str, options: JsonObject, data: TrainingData) -> tuple[JsonObject, Fit | None]:
    began = time.perf_counter()
    try:
        recommender = RECOMMENDERS[system].from_options(options).fit(data)
        fit = Fit(recommender, time.perf_counter() - began)
        return {"ndcg@10": data.validation_ndcg(recommender)}, fit
    except LorarecError as error:  # such as a learning rate that diverges: other trials may succeed
        return {"ndcg@10": None, "failed": str(error)}, None
