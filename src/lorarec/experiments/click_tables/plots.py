"""Pictures of RecLoRA's tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorarec.evaluation import COLUMNS
from lorarec.experiments.click_tables.report import AXES, TITLES
from lorarec.experiments.click_tables.rows import LEFT_OUT, OWN, SHARED

_BLUE, _GREYS, _DOTS_PER_INCH = "#3b6ea5", ("0.45", "0.7"), 120


def main_picture(path: Path, tables: Mapping[str, Any]) -> None:
    """AUC and log loss of every row: a dot for each seed, a line at their mean."""
    main = tables["main"]
    canvas = Figure(figsize=(11, 1.2 + 0.4 * len(main)), layout="constrained")
    for axis, figure in zip(canvas.subplots(1, 2, sharey=True), ("auc", "log_loss"), strict=True):
        for at, (kind, row) in enumerate(main.items()):
            colour = _BLUE if kind == OWN else "0.4"
            seeds = [*row[figure]["seeds"].values()]
            axis.plot(seeds, [at] * len(seeds), ".", color=colour)
            axis.plot(row[figure]["mean"], at, "|", markersize=18, markeredgewidth=2, color=colour)
        axis.set(xlabel=COLUMNS[figure])
        _plain(axis)
    axis.set_ylim(-0.5, len(main) - 0.5)
    axis.set_yticks(range(len(main)), [TITLES[kind] for kind in main])
    axis.invert_yaxis()
    canvas.suptitle(f"{tables['settings']['dataset']}: {tables['events']:,} test events; seeds and their mean")
    canvas.savefig(path, dpi=_DOTS_PER_INCH, format="png")


def analyses_picture(path: Path, tables: Mapping[str, Any], crm: str, first_seed: int) -> None:
    """AUC over the points of every analysis, with ReLLa and the conventional recommender as lines."""
    shown = {analysis: points for analysis, points in tables["analyses"].items() if points}
    canvas = Figure(figsize=(3.4 * len(shown), 3.4), layout="constrained")
    axes = canvas.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axis, (analysis, points) in zip(axes, shown.items(), strict=True):
        axis.plot(list(points), [each["auc"] for each in points.values()], "o-", color=_BLUE, label=TITLES[OWN])
        for kind, grey in zip((SHARED, crm), _GREYS, strict=True):
            auc = tables["main"].get(kind, {}).get("auc", {"seeds": {}})["seeds"].get(str(first_seed))
            if auc is not None:
                axis.axhline(auc, color=grey, linestyle="--", label=TITLES[kind])
        if analysis == LEFT_OUT:
            axis.lines[0].set_linestyle("none")
            axis.tick_params("x", rotation=20)
        axis.set(xlabel=AXES[analysis])
        _plain(axis)
    canvas.axes[0].set_ylabel(COLUMNS["auc"])
    canvas.legend(*canvas.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    canvas.savefig(path, dpi=_DOTS_PER_INCH, format="png")


def _plain(axis: Axes) -> None:
    axis.grid(color="0.9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
