"""Reports of RecLoRA's tables: tables.md, and the main table for a terminal."""

from collections.abc import Iterable

from rich.table import Table

from lorarec.ctr import MODELS
from lorarec.evaluation import (
    CLICK_METRICS,
    LEVEL,
    Cell,
    NumberCell,
    ReportTable,
    correction_title,
    describe_options,
    escape_markdown,
)
from lorarec.experiments.click_tables.rows import BLENDED, CTR_BERT, RECLORA, SHARED
from lorarec.io import JsonObject

TITLES = {name: model.__name__ for name, model in MODELS.items()} | {CTR_BERT: "CTR-BERT"}
TITLES |= {"tallrec": "TALLRec", SHARED: "ReLLa", RECLORA: "RecLoRA"}
TITLES |= {name + BLENDED: f"{TITLES[name]} + recommender" for name in ("tallrec", SHARED, RECLORA)}
#: Analysis -> the option that it varies, in words.
AXES = {
    "size": "meta-LoRAs",
    "id-history": "events that the recommender reads",
    "text-history": "events in the prompt",
    "samples": "training events of the language model",
    "left out": "left out",
}


def markdown(tables: JsonObject, first_seed: int) -> str:
    """Return the report: the main table, the differences with their tests, the analyses and the time.

    Args:
        tables: Result of `summarize_rows`.
        first_seed: Seed of the analyses.
    """
    settings = tables["settings"]
    lines = [
        f"# Clicks of {settings['dataset']}: {tables['events']:,} test events",
        "",
        f"Backbone {settings['backbone']}; recommender that RecLoRA reads: {settings['ctr_model']}. Options: "
        f"{describe_options(settings['options'])}.",
        "",
    ]
    if tables["failed"]:
        failed = tables["failed"].items()
        lines += ["**Failed**, and missing below:", ""]
        lines += [*(f"- {escape_markdown(name)}: {escape_markdown(reason)}" for name, reason in failed), ""]
    main: list[list[Cell]] = [
        [TITLES[kind], *(_seeds_cell(row[metric]) for metric in CLICK_METRICS), str(len(row["auc"]["seeds"]))]
        for kind, row in tables["main"].items()
    ]
    lines += ReportTable(["row", *CLICK_METRICS.values(), "seeds"], main).markdown()
    lines += [
        "",
        f"Mean ± sample standard deviation over seeds. [low, high]: {LEVEL:.0%} bootstrap interval over the test "
        "events, from 1,000 resamples; its ends are averaged over the seeds.",
        "",
    ]
    differences = [
        [TITLES[each["row"]], TITLES[each["other"]], each["seed"], f"{each['auc']:+.4f}", *_p_values(each)]
        for each in tables["differences"]
    ]
    columns = ["AUC of", "minus that of", "seed", "difference", "p", "corrected p"]
    lines += ReportTable(columns, differences, 2).markdown()
    lines += ["", _describe_tests(tables, tables["differences"])]
    for analysis, points in tables["analyses"].items():
        if points:
            lines += ["", f"## RecLoRA: {AXES[analysis]} (seed {first_seed})", ""]
            lines += [*_analysis_table(analysis, points).markdown(), "", _describe_tests(tables, points.values())]
    spent = {name: seconds for name, seconds in tables["seconds"].items() if BLENDED not in name}
    lines += ["", "## Time", ""]
    lines += ReportTable(["row", "minutes"], [[name, f"{value / 60:.1f}"] for name, value in spent.items()]).markdown()
    lines += ["", "Time of training and prediction, without a recommender that another row had trained before."]
    return "\n".join(lines) + "\n"


def main_table(tables: JsonObject) -> Table:
    """Return the metrics of the main table as means over seeds, for a terminal."""
    rows: list[list[Cell]] = []
    for kind, metrics in tables["main"].items():
        auc = metrics["auc"]
        others = [name for name in CLICK_METRICS if name != "auc"]
        cells = [NumberCell(auc["mean"], 4, (auc["low"], auc["high"]))]
        rows.append([TITLES[kind], *cells, *(NumberCell(metrics[name]["mean"], 4) for name in others)])
    table = ReportTable(["row", *CLICK_METRICS.values()], rows)
    title = f"{tables['settings']['dataset']}: {tables['events']:,} test events"
    return table.to_rich(title, f"means over seeds; [{LEVEL:.0%} interval over events]")


def _analysis_table(analysis: str, points: JsonObject) -> ReportTable:
    rows: list[list[Cell]] = []
    for point, row in points.items():
        low_high = row["intervals"]
        cells = [NumberCell(row[name], 4, (low_high[name][0], low_high[name][1])) for name in CLICK_METRICS]
        rows.append([point, *cells, *_p_values(row)])
    return ReportTable([AXES[analysis], *CLICK_METRICS.values(), "p against RecLoRA", "corrected p"], rows)


def _p_values(test: JsonObject) -> list[str]:
    """Return the cells of the p-value and of the corrected one, which are empty without a test."""
    return ["", ""] if test["p"] is None else [f"{test['p']:.2g}", f"{test['adjusted_p']:.2g}"]


def _describe_tests(tables: JsonObject, tests: Iterable[JsonObject]) -> str:
    """Return the line below a table with p-values."""
    comparisons = sum(test["p"] is not None for test in tests)
    correction = correction_title(tables["correction"], comparisons)
    return f"p: DeLong's test over the same events. Corrected p: {correction}."


def _seeds_cell(metric: JsonObject) -> NumberCell:
    """Return the cell of a metric over seeds; one seed has no standard deviation."""
    return NumberCell(metric["mean"], 4, (metric["low"], metric["high"]), metric["deviation"])
