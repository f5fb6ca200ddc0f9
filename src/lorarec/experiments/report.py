"""Reports of a ranking experiment: table.md, table.json and the picture."""

from pathlib import Path

from lorarec.evaluation import (
    BEST_NOTE,
    CATALOGUE_METRIC_NOTES,
    CATALOGUE_NOTE,
    METRIC_NOTES,
    PICTURE,
    Cell,
    ReportTable,
    comparisons_note,
    describe_options,
    escape_markdown,
    metric_cells,
    picture_line,
    plot_ndcg,
    property_cells,
    property_names,
    setting_heading,
    versions_line,
)
from lorarec.experiments.table import ExperimentTable, table_metrics
from lorarec.io import JsonObject, write_json, write_text


def write_table(table: ExperimentTable, folder: Path) -> None:
    """Write the three files into an existing folder, the JSON last."""
    plot_ndcg(folder / PICTURE, table.evaluation)
    write_text(folder / "table.md", markdown(table))
    write_json(folder / "table.json", table.as_dict())


def markdown(table: ExperimentTable) -> str:
    """Return the report: the table of each setting, then descriptions of the rows and columns."""
    protocol = table.evaluation.protocol
    dataset, split = protocol["dataset"], protocol["split"]
    general = ", ".join(f"{each['name']} ({each['fingerprint']})" for each in protocol["general"]) or "none"
    seeds = ", ".join(map(str, protocol["seeds"]))
    lines = [
        f"# Experiment on {dataset['name']}",
        "",
        f"- dataset: {dataset['name']} ({dataset['fingerprint']}); general domains: {general}",
        f"- split: {describe_options(split['options'])} ({split['fingerprint']})",
        f"- cases: {protocol['limit'] or 'all'} test users of each setting; seeds {seeds}",
        f"- backbone: {protocol['backbone'] or 'none'}",
        *map(_hardware_line, protocol["hardware"]),
        f"- time: {protocol['hours']:.2f} hours over all rows",
        *map(versions_line, protocol["versions"]),
        "",
        picture_line(table.evaluation),
        "",
    ]
    if table.failed:
        lines += ["**Failed**, and missing below:", ""]
        failed = table.failed.items()
        lines += [*(f"- {escape_markdown(name)}: {escape_markdown(reason)}" for name, reason in failed), ""]
    for name, result in table.evaluation.settings.items():
        lines += [*setting_heading(result), *_setting_table(table, name).markdown(), "", comparisons_note(result), ""]
    lines += ["## Rows", "", *_describe_rows(table), "", "## Columns", "", *_describe_columns(table)]
    return "\n".join(lines) + "\n"


def _hardware_line(hardware: JsonObject | None) -> str:
    if hardware is None:
        return "- hardware: not recorded for some rows"
    return f"- hardware: {hardware['cores']} cores, {hardware['memory_gib']} GiB, GPU {hardware['gpu'] or 'none'}"


def _setting_table(table: ExperimentTable, name: str) -> ReportTable:
    """Return the table of a setting: metrics, published metrics and costs."""
    result = table.evaluation.settings[name]
    papers = {row: settings.get(name, {}) for row, settings in table.recipe.paper.items()}
    metrics = table_metrics(table.recipe)
    published = [metric for metric in metrics if any(metric in each for each in papers.values())]
    columns = ["row", *map(str.upper, metrics), *(f"paper {metric.upper()}" for metric in published)]
    columns += map(str.upper, property_names(result))
    rows: list[list[Cell]] = []
    for row in result.rows.values():
        cost, paper = table.costs[name][row.name], papers.get(row.name, {})
        rows.append(
            [
                row.name + (" (a seed failed)" if cost.failed_seeds else ""),
                *metric_cells(result, row.name, metrics),
                *(f"{paper[metric]:.4f}" if metric in paper else "" for metric in published),
                *property_cells(result, row.name),
                str(len(cost.seeds)),
                f"{cost.fit_seconds:.1f}",
                f"{1000 * row.seconds_per_user:.2g}",
                "" if cost.peak_mib is None else f"{cost.peak_mib:,.0f}",
            ]
        )
    return ReportTable([*columns, "seeds", "fit s", "ms/user", "MiB"], rows)


def _describe_rows(table: ExperimentTable) -> list[str]:
    """Return a line about each row with the options it was fitted with, or several lines if tables differ."""
    lines = []
    texts: dict[str, dict[str, list[str]]] = {}
    for name, result in table.evaluation.settings.items():
        for row in result.rows.values():
            cost = table.costs[name][row.name]
            chosen = f"; the best of {len(cost.trials)} trials on validation" if cost.trials else ""
            text = "; ".join(part for part in (row.about, describe_options(cost.options)) if part) + chosen
            texts.setdefault(row.name, {}).setdefault(text, []).append(name)
    for row_name, by_text in texts.items():
        for text, settings in by_text.items():
            where = "" if len(by_text) == 1 else f", {', '.join(settings)}"
            lines.append(f"- **{escape_markdown(row_name)}**{where}: {escape_markdown(text)}")
    return lines


def _describe_columns(table: ExperimentTable) -> list[str]:
    source = escape_markdown(table.recipe.source or "source not given")
    paper = [f"- paper: as published ({source}); not the same experiment."] if table.recipe.paper else []
    stored = table.recipe.candidates == "stored"
    cases = (
        "Each case is one user's history and one candidate set that holds one target item, drawn once and stored with "
        "the split."
    )
    return [
        f"{cases if stored else CATALOGUE_NOTE} The metric of a case is its mean over the row's seeds; baselines and "
        "rows without random numbers have one seed.",
        "",
        *(METRIC_NOTES if stored else CATALOGUE_METRIC_NOTES),
        *paper,
        "- fit s: mean over seeds, without other trials and without what existed already: adapters, pre-trained "
        "weights.",
        "- ms/user: wall time of scoring one user's candidates. MiB: the largest resident memory of the row's process, "
        "with libraries, data and backbone.",
        BEST_NOTE,
    ]
