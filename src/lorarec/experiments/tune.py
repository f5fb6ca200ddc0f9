"""Options of a row, chosen among random trials on validation cases."""

import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lorarec.errors import LorarecError
from lorarec.experiments.recipe import RowConfig
from lorarec.experiments.systems import SYSTEMS
from lorarec.io import read_json, write_json
from lorarec.recommenders import Scorer, TrainingData


@dataclass(frozen=True)
class Fit:
    """A fitted system and the seconds that fitting took."""

    scorer: Scorer
    seconds: float


def tune(row: RowConfig, trials: int, material: TrainingData, kept: Path) -> tuple[list[dict[str, Any]], Fit | None]:
    """Fit a row with random combinations of the values to try, all different.

    Args:
        trials: so many, or all combinations where there are fewer.
        material: its seed draws the combinations; its validation cases judge them by NDCG@10.
        kept: JSON of the trials done so far, also those of other budgets and seeds; they are not done again.

    Returns:
        The options and the figure of each trial, the best one first; of equals the one drawn first. And what the best
        one fitted, which is what its options and the material's seed give; None where it was done before.

    Raises:
        LorarecError: no trial could be fitted.
    """
    grid = [dict(zip(row.tune, values, strict=True)) for values in product(*row.tune.values())]
    drawn = np.random.default_rng(material.seed).permutation(len(grid))[:trials]
    done: list[dict[str, Any]] = read_json(kept) if kept.exists() else []
    found: list[dict[str, Any]] = []
    best: Fit | None = None
    for place in drawn:
        asked = {"system": row.system, "options": row.options | grid[place], "seed": material.seed}
        trial, fit = next((before for before in done if before | asked == before), None), None
        if trial is None:
            figure, fit = _tried(asked["options"], row.system, material)
            trial = asked | figure
            done.append(trial)
            write_json(kept, done)
        found.append(trial)
        if max(found, key=_worth) is trial:
            best = fit
    found.sort(key=_worth, reverse=True)
    if found[0]["ndcg@10"] is None:
        raise LorarecError(f"none of {len(found)} trials could be fitted: {found[0]['failed']}")
    return found, best


def _worth(trial: dict[str, Any]) -> float:
    return -1 if trial["ndcg@10"] is None else trial["ndcg@10"]


def _tried(options: dict[str, Any], system: str, material: TrainingData) -> tuple[dict[str, Any], Fit | None]:
    began = time.perf_counter()
    try:
        fit = Fit(SYSTEMS[system](material, **options), time.perf_counter() - began)
        return {"ndcg@10": material.figure(fit.scorer)}, fit
    except LorarecError as error:  # such as a learning rate that diverges: the others may be better
        return {"ndcg@10": None, "failed": str(error)}, None
