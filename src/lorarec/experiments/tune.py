"""Options of a row, chosen among random trials on validation cases."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lorarec.artefacts import read_json, write_json
from lorarec.errors import LorarecError
from lorarec.experiments.recipe import Row
from lorarec.systems import SYSTEMS, Material


def tune(row: Row, trials: int, material: Material, kept: Path) -> list[dict[str, Any]]:
    """Fit a row with random combinations of the values to try, all different.

    Args:
        trials: so many, or all combinations where there are fewer.
        material: its seed draws the combinations; its validation cases judge them by NDCG@10.
        kept: JSON of the trials done so far, also those of other budgets and seeds; they are not done again.

    Returns:
        The options and the figure of each trial, the best one first; of equals the one drawn first.

    Raises:
        LorarecError: no trial could be fitted.
    """
    grid = [dict(zip(row.tune, values, strict=True)) for values in product(*row.tune.values())]
    drawn = np.random.default_rng(material.seed).permutation(len(grid))[:trials]
    done: list[dict[str, Any]] = read_json(kept) if kept.exists() else []
    found: list[dict[str, Any]] = []
    for place in drawn:
        asked = {"system": row.system, "options": row.options | grid[place], "seed": material.seed}
        trial = next((before for before in done if before | asked == before), None)
        if trial is None:
            trial = asked | _figure(asked["options"], row.system, material)
            done.append(trial)
            write_json(kept, done)
        found.append(trial)
    best = sorted(found, key=lambda trial: -1 if trial["ndcg@10"] is None else trial["ndcg@10"], reverse=True)
    if best[0]["ndcg@10"] is None:
        raise LorarecError(f"none of {len(found)} trials could be fitted: {best[0]['failed']}")
    return best


def _figure(options: dict[str, Any], system: str, material: Material) -> dict[str, Any]:
    try:
        return {"ndcg@10": material.figure(SYSTEMS[system](material, **options))}
    except LorarecError as error:  # such as a learning rate that diverges: the others may be better
        return {"ndcg@10": None, "failed": str(error)}
