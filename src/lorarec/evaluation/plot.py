"""The bar chart of an evaluation."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure as Canvas

from lorarec.evaluation.result import Evaluation
from lorarec.io import new_file

SHOWN = {"ndcg@1": "#3b6ea5", "ndcg@3": "#a9c4de"}


def plot_ndcg(path: Path, evaluation: Evaluation) -> None:
    """Write a PNG: NDCG@1 and NDCG@3 of every row with intervals, a panel per setting."""
    settings = list(evaluation.settings.values())
    most = max(len(result.rows) for result in settings)
    canvas = Canvas(figsize=(1.5 + 5 * len(settings), 1.5 + 0.45 * most), layout="constrained")
    panels = canvas.subplots(1, len(settings), sharex=True, squeeze=False)[0]
    height = 0.8 / len(SHOWN)
    for panel, result in zip(panels, settings, strict=True):
        for number, (figure, colour) in enumerate(SHOWN.items()):
            found = [row.figures[figure] for row in result.rows.values()]
            mean = np.array([each.mean for each in found])
            reach = np.array([[each.mean - each.low, each.high - each.mean] for each in found]).T
            places = np.arange(len(found)) + (number - (len(SHOWN) - 1) / 2) * height
            # A mean of few cases may lie outside its own percentile interval by rounding.
            error = {"xerr": reach.clip(min=0), "ecolor": "0.25", "capsize": 2, "error_kw": {"elinewidth": 1}}
            panel.barh(places, mean, height, color=colour, label=figure.upper(), **error)
        panel.set(title=f"{result.setting} ({result.cases:,} cases)", xlim=(0, None))
        panel.set_yticks(range(len(result.rows)), list(result.rows))
        panel.invert_yaxis()
        panel.grid(axis="x", color="0.9")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SHOWN), frameon=False)
    canvas.suptitle(f"{evaluation.protocol['dataset']['name']}: mean and 95% bootstrap interval")
    with new_file(path) as temporary:
        canvas.savefig(temporary, dpi=120, format="png")
