"""What is finished of RecLoRA's tables, as plain values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lorarec.data import LABEL
from lorarec.evaluation import COLUMNS
from lorarec.experiments.click_tables.recipe import ClicksRecipe
from lorarec.experiments.click_tables.rows import BLENDED, LORAS, ORDER, OWN
from lorarec.experiments.click_tables.work import PROBABILITY, ROWS, figures_of, intervals_of, scores
from lorarec.io import read_json
from lorarec.metrics import delong_test


def tables_of(
    recipe: ClicksRecipe, out: Path, settings: Mapping[str, Any], failed: Mapping[str, str]
) -> dict[str, Any]:
    """What tables.json holds: all that is in `out`/rows, also of rows that the recipe does not name.

    Returns:
        `settings`; `events`; `main`: row -> figure -> its `mean`, `deviation` and values by `seeds`, and the ends of
        its interval over events, averaged over seeds; `differences` of AUC with DeLong's p, seed by seed; `analyses`
        of the recipe: point -> figures, intervals and p against RecLoRA; `seconds` of each row; `failed` as given.
    """
    found = {path.stem: read_json(path) for path in sorted((out / ROWS).glob("*.json"))}
    told = {name: pl.read_parquet(scores(out, name)) for name in found}
    for name, row in found.items():  # rows of earlier versions have no intervals
        labels, own = told[name][LABEL].to_numpy(), told[name][PROBABILITY].to_numpy()
        row["intervals"] = row.get("intervals") or intervals_of(figures_of(own, labels))
    main = {kind: rows for kind in ORDER if (rows := _by_seed(found, kind))}
    pairs = [(OWN + how, name + how) for how in ("", BLENDED) for name in LORAS if name != OWN]
    pairs += [(OWN, recipe.crm), *((name + BLENDED, recipe.crm) for name in LORAS)]
    differences = [each for one, other in pairs for each in _differences(told, main, one, other)]
    reference = f"{OWN}-seed{recipe.seeds[0]}"
    analyses = {
        analysis: {
            point: found[row.name]["figures"]
            | {"row": row.name, "intervals": found[row.name]["intervals"], "p": _p(told, row.name, reference)}
            for point, row in points.items()
            if row.name in found
        }
        for analysis, points in recipe.points.items()
    }
    return {
        "settings": settings,
        "events": max(map(len, told.values()), default=0),
        "main": {kind: _over_seeds(rows) for kind, rows in main.items()},
        "differences": differences,
        "analyses": analyses,
        "seconds": {name: row["seconds"] for name, row in found.items()},
        "failed": dict(failed),
    }


def _by_seed(found: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Seed -> the row of a kind with it."""
    parts = {name: name.rpartition("-seed") for name in found}
    return {seed: found[name] for name, (before, _, seed) in parts.items() if before == kind}


def _over_seeds(rows: Mapping[str, Any]) -> dict[str, Any]:
    table = {}
    for figure in COLUMNS:
        values = {seed: row["figures"][figure] for seed, row in rows.items()}
        low, high = np.mean([row["intervals"][figure] for row in rows.values()], axis=0)
        spread = [*values.values()]
        table[figure] = {
            "mean": float(np.mean(spread)),
            "deviation": float(np.std(spread)),
            "low": float(low),
            "high": float(high),
            "seeds": values,
        }
    return table


def _differences(
    told: Mapping[str, pl.DataFrame], main: Mapping[str, Any], own: str, other: str
) -> list[dict[str, Any]]:
    """For each seed that both kinds have: AUC of one less that of the other, and DeLong's p."""
    one, two = main.get(own, {}), main.get(other, {})
    return [
        {
            "row": own,
            "other": other,
            "seed": seed,
            "auc": one[seed]["figures"]["auc"] - two[seed]["figures"]["auc"],
            "p": _p(told, f"{own}-seed{seed}", f"{other}-seed{seed}"),
        }
        for seed in one
        if seed in two
    ]


def _p(told: Mapping[str, pl.DataFrame], name: str, other: str) -> float | None:
    """DeLong's p that two rows have one AUC; None of a row and itself, or while one is missing."""
    if name == other or other not in told:
        return None
    one, two = (told[each][PROBABILITY].to_numpy() for each in (name, other))
    return delong_test(one, two, told[name][LABEL].to_numpy())
