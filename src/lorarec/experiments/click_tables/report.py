"""RecLoRA's tables for a person: tables.md, and the main table at a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from lorarec.ctr import MODELS
from lorarec.evaluation import COLUMNS, LEVEL, plain
from lorarec.experiments.click_tables.rows import BLENDED, CTR_BERT, OWN, SHARED

TITLES = {name: model.__name__ for name, model in MODELS.items()} | {CTR_BERT: "CTR-BERT"}
TITLES |= {"tallrec": "TALLRec", SHARED: "ReLLa", OWN: "RecLoRA"}
TITLES |= {name + BLENDED: f"{TITLES[name]} + recommender" for name in ("tallrec", SHARED, OWN)}
#: What an analysis varies.
AXES = {
    "size": "meta-LoRAs",
    "id-history": "events that the recommender reads",
    "text-history": "events in the prompt",
    "samples": "training events of the language model",
    "left out": "left out",
}


def markdown(tables: Mapping[str, Any], first_seed: int) -> str:
    """The main table, the differences with their tests, and the analyses."""
    settings = tables["settings"]
    chosen = ", ".join(f"{name} {value}" for name, value in settings["options"].items())
    head, rule = " | ".join(COLUMNS.values()), "|---:" * len(COLUMNS)
    lines = [
        f"# Clicks of {settings['dataset']}: {tables['events']:,} test events",
        "",
        f"Backbone {settings['backbone']}; recommender that RecLoRA reads: {settings['crm']}. Options: {chosen}.",
        "",
    ]
    if tables["failed"]:
        lines += ["**Failed**, and missing below:", ""]
        lines += [*(f"- {plain(name)}: {plain(why)}" for name, why in tables["failed"].items()), ""]
    lines += [f"| row | {head} | seeds |", f"|---{rule}|---:|"]
    for kind, figures in tables["main"].items():
        cells = " | ".join(map(_cell, figures.values()))
        lines.append(f"| {TITLES[kind]} | {cells} | {len(figures['auc']['seeds'])} |")
    lines += [
        "",
        f"Mean ± standard deviation over seeds. [low, high]: {LEVEL:.0%} bootstrap interval over the test events, from "
        "1,000 resamples; its ends are averaged over the seeds.",
        "",
        "| AUC of | less that of | seed | difference | p |",
        "|---|---|---:|---:|---:|",
    ]
    for each in tables["differences"]:
        compared = f"| {TITLES[each['row']]} | {TITLES[each['other']]} "
        lines.append(f"{compared}| {each['seed']} | {each['auc']:+.4f} | {each['p']:.2g} |")
    lines += ["", "p: DeLong's test over the same events."]
    for analysis, points in tables["analyses"].items():
        if points:
            lines += ["", f"## RecLoRA: {AXES[analysis]} (seed {first_seed})", ""]
            lines += [f"| {AXES[analysis]} | {head} | p against RecLoRA |", f"|---{rule}|---:|"]
        for point, found in points.items():
            cells = " | ".join(f"{found[name]:.4f} {_interval(*found['intervals'][name])}" for name in COLUMNS)
            p = "" if found["p"] is None else f"{found['p']:.2g}"
            lines.append(f"| {point} | {cells} | {p} |")
    lines += ["", "## Time", "", "| row | minutes |", "|---|---:|"]
    own = {name: seconds for name, seconds in tables["seconds"].items() if BLENDED not in name}
    lines += [f"| {name} | {seconds / 60:.1f} |" for name, seconds in own.items()]
    lines += ["", "Of training and prediction; without a recommender that another row had trained before."]
    return "\n".join(lines) + "\n"


def main_table(tables: Mapping[str, Any]) -> Table:
    """Figures of the main table as means over seeds."""
    title = f"{tables['settings']['dataset']}: {tables['events']:,} test events"
    caption = f"means over seeds; [{LEVEL:.0%} interval over events]"
    table = Table(title=Text(title), caption=Text(caption))
    table.add_column("row")
    for name in COLUMNS.values():
        table.add_column(name, justify="right")
    for kind, figures in tables["main"].items():
        cells = [f"{figures[name]['mean']:.4f}" for name in COLUMNS]
        cells[0] += f" {_interval(figures['auc']['low'], figures['auc']['high'])}"
        table.add_row(Text(TITLES[kind]), *map(Text, cells))
    return table


def _cell(figure: Mapping[str, Any]) -> str:
    spread = f" ± {figure['deviation']:.4f}" if len(figure["seeds"]) > 1 else ""
    return f"{figure['mean']:.4f}{spread} {_interval(figure['low'], figure['high'])}"


def _interval(low: float, high: float) -> str:
    return f"[{low:.4f}, {high:.4f}]"
