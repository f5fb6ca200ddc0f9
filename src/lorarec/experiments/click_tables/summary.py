"""Summary of the finished rows of RecLoRA's tables."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from lorarec.data import LABEL
from lorarec.evaluation import CLICK_METRICS
from lorarec.experiments.click_tables.recipe import ClicksRecipe
from lorarec.experiments.click_tables.row_runner import PROBABILITY, ROWS, intervals_of, metrics_of, predictions_file
from lorarec.experiments.click_tables.rows import BLENDED, LORAS, ORDER, RECLORA
from lorarec.io import JsonObject, read_json
from lorarec.metrics import Correction, adjust_p_values, delong_test


def summarize_rows(recipe: ClicksRecipe, out: Path, settings: JsonObject, failed: Mapping[str, str]) -> JsonObject:
    """Summarize all rows in the folder `out`/rows, also those that the recipe does not name.

    Args:
        settings: Settings of the experiment, which are part of the result.
        failed: Reason of failure by name of the row, which is part of the result.

    Returns:
        The contents of tables.json. `settings`: as given. `correction`: that of the recipe. `events`: the number of
        test events. `main`: for each row and metric the `mean` and `deviation` over seeds, the values by `seeds`, and
        the ends of the interval over events, averaged over seeds. `differences`: differences of AUC for each seed, with
        `p` of DeLong's test and `adjusted_p`, corrected for the number of differences. `analyses`: for each point
        metrics, intervals and p against RecLoRA, with `adjusted_p`, corrected for the number of points that were
        tested. `seconds`: time of each row. `failed`: as given.
    """
    records = {path.stem: read_json(path) for path in sorted((out / ROWS).glob("*.json"))}
    predictions = {name: pl.read_parquet(predictions_file(out, name), glob=False) for name in records}
    for name, row in records.items():  # rows of earlier versions have no intervals
        labels, own = predictions[name][LABEL].to_numpy(), predictions[name][PROBABILITY].to_numpy()
        row["intervals"] = row.get("intervals") or intervals_of(metrics_of(own, labels))
    main = {kind: rows for kind in ORDER if (rows := _by_seed(records, kind))}
    pairs = [(RECLORA + suffix, name + suffix) for suffix in ("", BLENDED) for name in LORAS if name != RECLORA]
    pairs += [(RECLORA, recipe.ctr_model), *((name + BLENDED, recipe.ctr_model) for name in LORAS)]
    differences = [each for own, other in pairs for each in _differences(predictions, main, own, other)]
    _correct(differences, recipe.correction)
    reference = f"{RECLORA}-seed{recipe.seeds[0]}"
    analyses = {
        analysis: {
            point: records[row.name]["figures"]
            | {
                "row": row.name,
                "intervals": records[row.name]["intervals"],
                "p": _p_value(predictions, row.name, reference),
            }
            for point, row in points.items()
            if row.name in records
        }
        for analysis, points in recipe.points.items()
    }
    for points in analyses.values():
        _correct(points.values(), recipe.correction)
    return {
        "settings": settings,
        "correction": recipe.correction,
        "events": max(map(len, predictions.values()), default=0),
        "main": {kind: _over_seeds(rows) for kind, rows in main.items()},
        "differences": differences,
        "analyses": analyses,
        "seconds": {name: row["seconds"] for name, row in records.items()},
        "failed": dict(failed),
    }


def _correct(tests: Iterable[JsonObject], correction: Correction) -> None:
    """Add `adjusted_p`, the p-value corrected for the number of tests of one table, to each test in place."""
    tested = [test for test in tests if test["p"] is not None]
    for test, p_value in zip(tested, adjust_p_values([test["p"] for test in tested], correction), strict=True):
        test["adjusted_p"] = float(p_value)


def _by_seed(records: JsonObject, kind: str) -> JsonObject:
    """Return the rows of a kind by seed."""
    parts = {name: name.rpartition("-seed") for name in records}
    return {seed: records[name] for name, (before, _, seed) in parts.items() if before == kind}


def _over_seeds(rows: JsonObject) -> JsonObject:
    """Return mean, sample standard deviation (None for one seed), interval and single values of each metric."""
    table = {}
    for metric in CLICK_METRICS:
        values = {seed: row["figures"][metric] for seed, row in rows.items()}
        low, high = np.mean([row["intervals"][metric] for row in rows.values()], axis=0)
        spread = [*values.values()]
        table[metric] = {
            "mean": float(np.mean(spread)),
            "deviation": float(np.std(spread, ddof=1)) if len(spread) > 1 else None,
            "low": float(low),
            "high": float(high),
            "seeds": values,
        }
    return table


def _differences(predictions: Mapping[str, pl.DataFrame], main: JsonObject, own: str, other: str) -> list[JsonObject]:
    """Return the difference of AUC and DeLong's p for each seed that both kinds of rows have."""
    own_seeds, other_seeds = main.get(own, {}), main.get(other, {})
    return [
        {
            "row": own,
            "other": other,
            "seed": seed,
            "auc": own_seeds[seed]["figures"]["auc"] - other_seeds[seed]["figures"]["auc"],
            "p": _p_value(predictions, f"{own}-seed{seed}", f"{other}-seed{seed}"),
        }
        for seed in own_seeds
        if seed in other_seeds
    ]


def _p_value(predictions: Mapping[str, pl.DataFrame], name: str, other: str) -> float | None:
    """Return p of DeLong's test that two rows have the same AUC; None for one row alone, or if one is missing."""
    if name == other or other not in predictions:
        return None
    first, second = (predictions[each][PROBABILITY].to_numpy() for each in (name, other))
    return delong_test(first, second, predictions[name][LABEL].to_numpy())
