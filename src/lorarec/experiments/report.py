"""table.md, table.json and the picture of an experiment."""

from pathlib import Path

from lorarec.data import NEW_ITEM
from lorarec.evaluation import LEVEL, NEW_ITEM_NOTE, PICTURE, SIGNIFICANT, cell, plain, plot_ndcg
from lorarec.experiments.table import Table
from lorarec.io import write_json, write_text

COLUMNS = ("ndcg@1", "ndcg@3", "ndcg@10", "hr@10", "mrr")


def write_table(table: Table, folder: Path) -> None:
    """Write the three files into a folder that exists, the JSON last."""
    plot_ndcg(folder / PICTURE, table.evaluation)
    write_text(folder / "table.md", markdown(table))
    write_json(folder / "table.json", table.as_dict())


def markdown(table: Table) -> str:
    """The table of each setting, then what rows and columns are."""
    known = table.evaluation.protocol
    options = ", ".join(f"{key} {value}" for key, value in known["split"]["options"].items())
    general = ", ".join(f"{each['name']} ({each['fingerprint']})" for each in known["general"]) or "none"
    machine = known["hardware"]
    lines = [
        f"# Experiment on {known['dataset']['name']}",
        "",
        f"- dataset: {known['dataset']['name']} ({known['dataset']['fingerprint']}); general domains: {general}",
        f"- split: {options} ({known['split']['fingerprint']})",
        f"- cases: {known['limit'] or 'all'} test users of each setting; seeds {', '.join(map(str, known['seeds']))}",
        f"- backbone: {known['backbone'] or 'none'}",
        f"- hardware: {machine['cores']} cores, {machine['memory_gib']} GiB, GPU {machine['gpu'] or 'none'}; "
        f"{known['hours']:.2f} hours over all rows",
        "- versions: " + ", ".join(f"{package} {version}" for package, version in known["versions"].items()),
        "",
        f"![NDCG@1 and NDCG@3 with intervals]({PICTURE})",
        "",
    ]
    if table.failed:
        lines += ["**Failed**, and missing below:", ""]
        lines += [*(f"- {plain(name)}: {plain(why)}" for name, why in table.failed.items()), ""]
    for name in table.evaluation.settings:
        lines += [*_setting(table, name), ""]
    return "\n".join([*lines, "## Rows", "", *_rows(table), "", "## Columns", "", *_columns(table)]) + "\n"


def _setting(table: Table, name: str) -> list[str]:
    result = table.evaluation.settings[name]
    papers = {row: figures.get(name, {}) for row, figures in table.recipe.paper.items()}
    published = [figure for figure in COLUMNS if any(figure in each for each in papers.values())]
    best = {figure: max(row.figures[figure].mean for row in result.rows.values()) for figure in COLUMNS}
    head = ["row", *map(str.upper, COLUMNS), *(f"paper {figure.upper()}" for figure in published)]
    head += ["seeds", "fit s", "ms/user", "MiB"]
    lines = [
        f"## {name}",
        "",
        f"{result.cases:,} cases of {result.users:,} users. All rows ranked the same candidate sets "
        f"(hash {result.candidates}). Compared with: {plain(result.compare_with)}.",
        *([NEW_ITEM_NOTE] if name.startswith(NEW_ITEM) else []),
        "",
        "| " + " | ".join(head) + " |",
        "|---" + "|---:" * (len(head) - 1) + "|",
    ]
    for row in result.rows.values():
        cost, paper = table.costs[name][row.name], papers.get(row.name, {})
        cells = [cell(row.figures[figure], row.figures[figure].mean == best[figure]) for figure in COLUMNS]
        cells += [f"{paper[figure]:.4f}" if figure in paper else "" for figure in published]
        cells += [str(len(cost.seeds)), f"{cost.fit_seconds:.1f}", f"{1000 * row.seconds_per_user:.2g}"]
        cells.append("" if cost.peak_mib is None else f"{cost.peak_mib:,.0f}")
        mark = " (a seed failed)" if cost.failed_seeds else ""
        lines.append("| " + " | ".join([plain(row.name) + mark, *cells]) + " |")
    return lines


def _rows(table: Table) -> list[str]:
    """What each row is and the options it was fitted with, by table where these differ."""
    told: dict[str, dict[str, list[str]]] = {}
    for name, result in table.evaluation.settings.items():
        for row in result.rows.values():
            cost = table.costs[name][row.name]
            options = ", ".join(f"{key} {value}" for key, value in cost.options.items())
            chosen = f"; the best of {len(cost.trials)} trials on validation" if cost.trials else ""
            text = "; ".join(part for part in (row.about, options) if part) + chosen
            told.setdefault(row.name, {}).setdefault(text, []).append(name)
    return [
        f"- **{plain(row)}**{'' if len(texts) == 1 else ', ' + ', '.join(names)}: {plain(text)}"
        for row, texts in told.items()
        for text, names in texts.items()
    ]


def _columns(table: Table) -> list[str]:
    paper = (
        [f"- paper: as published ({plain(table.recipe.source)}); not the same experiment."]
        if table.recipe.paper
        else []
    )
    return [
        "Each case is one user's history and one candidate set that holds one right item, drawn once and stored with "
        "the split. The figure of a case is its mean over the row's seeds; baselines and rows that draw nothing have "
        "one seed.",
        "",
        "- NDCG@k: 1 / log2(rank + 1) of the right item if it is among the first k, else 0. HR@k: share of cases whose "
        "right item is among the first k. MRR: mean of 1 / rank.",
        f"- [low, high]: {LEVEL:.0%} percentile bootstrap interval over cases; 1,000 resamples, the same for all rows.",
        f"- \\*: differs from the compared row, two-sided paired t-test over cases with p < {SIGNIFICANT}, not "
        "corrected for the number of rows and columns.",
        *paper,
        "- fit s: mean over seeds, without other trials and without what was there already: adapters, pre-trained "
        "weights.",
        "- ms/user: wall time of scoring one user's candidates. MiB: the largest resident memory of the row's process, "
        "with libraries, data and backbone.",
        "- Bold: the highest mean of the column.",
    ]
