"""Pictures of RecLoRA's tables."""

from pathlib import Path

from matplotlib.figure import Figure

from lorarec.evaluation import CLICK_METRICS, style_axes
from lorarec.experiments.click_tables.report import AXES, TITLES
from lorarec.experiments.click_tables.rows import LEFT_OUT, RECLORA, SHARED
from lorarec.io import JsonObject, save_figure

_BLUE, _GREYS = "#3b6ea5", ("0.45", "0.7")


def plot_main_table(path: Path, tables: JsonObject) -> None:
    """Write a PNG: AUC and log loss of every row, with a dot for each seed and a line at their mean.

    Args:
        tables: Result of `summarize_rows`.
    """
    main = tables["main"]
    figure = Figure(figsize=(11, 1.2 + 0.4 * len(main)), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2, sharey=True), ("auc", "log_loss"), strict=True):
        for position, (kind, row) in enumerate(main.items()):
            color = _BLUE if kind == RECLORA else "0.4"
            seeds = [*row[metric]["seeds"].values()]
            axes.plot(seeds, [position] * len(seeds), ".", color=color)
            axes.plot(row[metric]["mean"], position, "|", markersize=18, markeredgewidth=2, color=color)
        axes.set(xlabel=CLICK_METRICS[metric])
        style_axes(axes)
    axes.set_ylim(-0.5, len(main) - 0.5)
    axes.set_yticks(range(len(main)), [TITLES[kind] for kind in main])
    axes.invert_yaxis()
    figure.suptitle(f"{tables['settings']['dataset']}: {tables['events']:,} test events; seeds and their mean")
    save_figure(figure, path)


def plot_analyses(path: Path, tables: JsonObject, ctr_model: str, first_seed: int) -> None:
    """Write a PNG: AUC over the points of every analysis, with ReLLa and the click-through model as lines.

    Args:
        tables: Result of `summarize_rows`.
        ctr_model: Name of the click-through model.
        first_seed: Seed of the analyses.
    """
    analyses = {analysis: points for analysis, points in tables["analyses"].items() if points}
    figure = Figure(figsize=(3.4 * len(analyses), 3.4), layout="constrained")
    panels = figure.subplots(1, len(analyses), squeeze=False, sharey=True)[0]
    for axes, (analysis, points) in zip(panels, analyses.items(), strict=True):
        axes.plot(list(points), [each["auc"] for each in points.values()], "o-", color=_BLUE, label=TITLES[RECLORA])
        for kind, grey in zip((SHARED, ctr_model), _GREYS, strict=True):
            auc = tables["main"].get(kind, {}).get("auc", {"seeds": {}})["seeds"].get(str(first_seed))
            if auc is not None:
                axes.axhline(auc, color=grey, linestyle="--", label=TITLES[kind])
        if analysis == LEFT_OUT:
            axes.lines[0].set_linestyle("none")
            axes.tick_params("x", rotation=20)
        axes.set(xlabel=AXES[analysis])
        style_axes(axes)
    panels[0].set_ylabel(CLICK_METRICS["auc"])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    save_figure(figure, path)
