"""What is finished of RecLoRA's tables, in tables.json, tables.md and two pictures (see personal_tables.py)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorarec.artefacts import read_json, write_json
from lorarec.conventional import MODELS
from lorarec.metrics.clicks import delong_test

#: RecLoRA as in the paper, and blended with its recommender.
OWN, BLEND = "reclora", "reclora-blended"
TITLES = {
    "ctr-bert": "CTR-BERT",
    "tallrec": "TALLRec",
    "rella": "ReLLa",
    OWN: "RecLoRA",
    "tallrec-blended": "TALLRec + recommender",
    "rella-blended": "ReLLa + recommender",
    BLEND: "RecLoRA + recommender",
}
TITLES |= {name: model.__name__ for name, model in MODELS.items()}
COLUMNS = {"auc": "AUC", "log_loss": "LogLoss", "accuracy": "ACC", "calibration_error": "ECE"}
AXES = {
    "size": "meta-LoRAs",
    "id-history": "events that the recommender reads",
    "text-history": "events in the prompt",
    "samples": "training events of the language model",
    "left out": "left out",
}
GREYS = ("0.45", "0.7")


def summarise(out: Path, order: Sequence[str], crm: str, analyses: Mapping[str, Mapping[str, str]]) -> None:
    """Write the summary of what is in `out`/rows.

    Args:
        order: kinds of the main table; the rows of one are called KIND-seedN.
        crm: the kind that RecLoRA's router reads.
        analyses: name -> point -> name of its row.
    """
    found = {path.stem: read_json(path) for path in sorted((out / "rows").glob("*.json"))}
    scores = {name: pl.read_parquet(out / "rows" / f"{name}.parquet") for name in found}
    main = {kind: rows for kind in order if (rows := {s: r for n, r in found.items() if (s := _seed(n, kind))})}
    tables: dict[str, Any] = {
        "settings": read_json(out / "settings.json"),
        "events": max(map(len, scores.values()), default=0),
        "main": {kind: _over_seeds(rows) for kind, rows in main.items()},
        "differences": [
            {"row": own, "other": other} | difference
            for own, shared in ((OWN, "rella"), (BLEND, "rella-blended"))
            for other in (shared, crm)
            for difference in _differences(scores, main, own, other)
        ],
        "analyses": {},
    }
    own = f"{OWN}-seed{tables['settings']['first_seed']}"
    for analysis, points in analyses.items():
        tables["analyses"][analysis] = {
            point: found[name]["figures"] | {"row": name, "p": _p(scores, name, own)}
            for point, name in points.items()
            if name in found
        }
    write_json(out / "tables.json", tables)
    (out / "tables.md").write_text(_markdown(tables), encoding="utf-8")
    if main:
        _main_picture(out / "main.png", tables)
    if any(tables["analyses"].values()):
        _analyses_picture(out / "analyses.png", tables, crm)


def _seed(name: str, kind: str) -> str | None:
    before, _, seed = name.rpartition("-seed")
    return seed if before == kind else None


def _over_seeds(rows: Mapping[str, Any]) -> dict[str, Any]:
    values = {figure: {seed: row["figures"][figure] for seed, row in rows.items()} for figure in COLUMNS}
    return {
        figure: {"mean": float(np.mean([*v.values()])), "deviation": float(np.std([*v.values()])), "seeds": v}
        for figure, v in values.items()
    }


def _differences(
    scores: Mapping[str, pl.DataFrame], main: Mapping[str, Any], own: str, other: str
) -> list[dict[str, Any]]:
    """For each seed that both kinds have: AUC of one less that of the other, and DeLong's p."""
    one, two = main.get(own, {}), main.get(other, {})
    return [
        {
            "seed": seed,
            "auc": one[seed]["figures"]["auc"] - two[seed]["figures"]["auc"],
            "p": _p(scores, f"{own}-seed{seed}", f"{other}-seed{seed}"),
        }
        for seed in one
        if seed in two
    ]


def _p(scores: Mapping[str, pl.DataFrame], name: str, other: str) -> float | None:
    """DeLong's p that two rows have one AUC; None of a row and itself, or while one is missing."""
    if name == other or other not in scores:
        return None
    one, two = scores[name], scores[other]
    return delong_test(one["probability"].to_numpy(), two["probability"].to_numpy(), one["label"].to_numpy())


def _markdown(tables: Mapping[str, Any]) -> str:
    settings = tables["settings"]
    chosen = ", ".join(f"{name} {value}" for name, value in settings["options"].items())
    head = "| " + " | ".join(COLUMNS.values()) + " |"
    rule = "|---:" * len(COLUMNS) + "|"
    lines = [f"# Clicks of {settings['dataset']}: {tables['events']:,} test events", "", f"Options: {chosen}.", ""]
    lines += [f"| row {head} seeds |", f"|---{rule}---:|"]
    for kind, figures in tables["main"].items():
        seeds = len(figures["auc"]["seeds"])
        cells = [f"{f['mean']:.4f}" + (f" ± {f['deviation']:.4f}" if seeds > 1 else "") for f in figures.values()]
        lines.append(f"| {TITLES[kind]} | " + " | ".join(cells) + f" | {seeds} |")
    lines += [
        "",
        "Mean ± standard deviation over seeds.",
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
            lines += ["", f"## RecLoRA: {AXES[analysis]} (seed {settings['first_seed']})", ""]
            lines += [f"| {AXES[analysis]} {head} p against RecLoRA |", f"|---{rule}---:|"]
        for point, figures in points.items():
            p = "" if figures["p"] is None else f"{figures['p']:.2g}"
            lines.append(f"| {point} | " + " | ".join(f"{figures[f]:.4f}" for f in COLUMNS) + f" | {p} |")
    return "\n".join(lines) + "\n"


def _main_picture(path: Path, tables: Mapping[str, Any]) -> None:
    """AUC and log loss of every row: a dot for each seed, a line at their mean."""
    main = tables["main"]
    canvas = Figure(figsize=(11, 1.2 + 0.4 * len(main)), layout="constrained")
    for axis, figure in zip(canvas.subplots(1, 2, sharey=True), ("auc", "log_loss"), strict=True):
        for at, (kind, row) in enumerate(main.items()):
            colour = "#3b6ea5" if kind == OWN else "0.4"
            axis.plot([*row[figure]["seeds"].values()], [at] * len(row[figure]["seeds"]), ".", color=colour)
            axis.plot(row[figure]["mean"], at, "|", markersize=18, markeredgewidth=2, color=colour)
        axis.set(xlabel=COLUMNS[figure])
        _plain(axis)
    axis.set_ylim(-0.5, len(main) - 0.5)
    axis.set_yticks(range(len(main)), [TITLES[kind] for kind in main])
    axis.invert_yaxis()
    canvas.suptitle(f"{tables['settings']['dataset']}: {tables['events']:,} test events; seeds and their mean")
    canvas.savefig(path, dpi=120)


def _analyses_picture(path: Path, tables: Mapping[str, Any], crm: str) -> None:
    """AUC over the points of every analysis, with ReLLa and the conventional recommender as lines."""
    shown = {analysis: points for analysis, points in tables["analyses"].items() if points}
    first = str(tables["settings"]["first_seed"])
    canvas = Figure(figsize=(3.4 * len(shown), 3.4), layout="constrained")
    axes = canvas.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axis, (analysis, points) in zip(axes, shown.items(), strict=True):
        axis.plot(list(points), [each["auc"] for each in points.values()], "o-", color="#3b6ea5", label="RecLoRA")
        for kind, grey in zip(("rella", crm), GREYS, strict=True):
            auc = tables["main"].get(kind, {}).get("auc", {"seeds": {}})["seeds"].get(first)
            if auc is not None:
                axis.axhline(auc, color=grey, linestyle="--", label=TITLES[kind])
        if analysis == "left out":
            axis.lines[0].set_linestyle("none")
            axis.tick_params("x", rotation=20)
        axis.set(xlabel=AXES[analysis])
        _plain(axis)
    canvas.axes[0].set_ylabel("AUC")
    canvas.legend(*canvas.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    canvas.savefig(path, dpi=120)


def _plain(axis: Axes) -> None:
    axis.grid(color="0.9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
