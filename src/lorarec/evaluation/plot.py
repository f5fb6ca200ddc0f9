"""The bar chart of an evaluation."""

from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorarec.evaluation.result import Evaluation
from lorarec.io import save_figure

_PLOTTED, _PLOTTED_CATALOGUE = ("ndcg@1", "ndcg@3"), ("ndcg@10", "recall@100")
_COLORS = ("#3b6ea5", "#a9c4de")


def plot_ndcg(path: Path, evaluation: Evaluation) -> None:
    """Write a PNG: `plotted_metrics` of every row with intervals, a panel for each setting."""
    settings = list(evaluation.settings.values())
    most = max(len(result.rows) for result in settings)
    figure = Figure(figsize=(1.5 + 5 * len(settings), 1.5 + 0.45 * most), layout="constrained")
    panels = figure.subplots(1, len(settings), sharex=True, squeeze=False)[0]
    colors = dict(zip(plotted_metrics(evaluation), _COLORS, strict=True))
    height = 0.8 / len(colors)
    for panel, result in zip(panels, settings, strict=True):
        for number, (name, color) in enumerate(colors.items()):
            metrics = [row.metrics[name] for row in result.rows.values()]
            mean = np.array([each.mean for each in metrics])
            reach = np.array([[each.mean - each.low, each.high - each.mean] for each in metrics]).T
            positions = np.arange(len(metrics)) + (number - (len(colors) - 1) / 2) * height
            # A mean of few cases may lie outside its own percentile interval by rounding.
            error = {"xerr": reach.clip(min=0), "ecolor": "0.25", "capsize": 2, "error_kw": {"elinewidth": 1}}
            panel.barh(positions, mean, height, color=color, label=name.upper(), **error)
        panel.set(title=f"{result.setting} ({result.cases:,} cases)", xlim=(0, None))
        panel.set_yticks(range(len(result.rows)), list(result.rows))
        panel.invert_yaxis()
        style_axes(panel, grid="x")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(colors), frameon=False)
    figure.suptitle(f"{evaluation.protocol['dataset']['name']}: mean and 95% bootstrap interval")
    save_figure(figure, path)


def plotted_metrics(evaluation: Evaluation) -> tuple[str, str]:
    """Return the names of the two metrics in the picture."""
    stored = all(result.catalogue is None for result in evaluation.settings.values())
    return _PLOTTED if stored else _PLOTTED_CATALOGUE


def style_axes(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """Draw a light grid behind the data, and no frame at the top and on the right.

    Args:
        grid: The axis whose grid lines are drawn: `x`, `y` or `both`.
    """
    axes.grid(axis=grid, color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
