"""Pictures of how weights were chosen and what they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lorarec.io import save_figure


def plot_weights(path: Path, names: Sequence[str], weights: Sequence[float] | Mapping[str, Sequence[float]]) -> None:
    """A bar per adapter, or stacked bars per layer from the first (top) to the last."""
    if not isinstance(weights, Mapping):
        figure = Figure(figsize=(5, 3), layout="tight")
        axes = figure.subplots()
        axes.bar(names, weights)
        axes.set(ylabel="weight", ylim=(0, 1), title="Weights of the mixture")
    else:
        figure = Figure(figsize=(7, 1.5 + 0.16 * len(weights)), layout="tight")
        axes = figure.subplots()
        left = [0.0] * len(weights)
        for index, name in enumerate(names):
            part = [values[index] for values in weights.values()]
            axes.barh(list(weights), part, left=left, label=name)
            left = [start + width for start, width in zip(left, part, strict=True)]
        axes.set(xlabel="weight", xlim=(0, 1), title="Weights of the mixture, layer by layer")
        axes.tick_params(axis="y", labelsize=6)
        axes.invert_yaxis()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06 - 1.2 / len(weights)), ncols=len(names))
    save_figure(figure, path)


def plot_entropy(path: Path, steps: Sequence[dict[str, Any]]) -> None:
    """Entropy at every evaluation, and each adapter's mean weight there."""
    figure = Figure(figsize=(6, 5), layout="tight")
    upper, lower = figure.subplots(2, sharex=True)
    numbers = [step["step"] for step in steps]
    upper.plot(numbers, [step["entropy"] for step in steps], marker=".")
    upper.set(ylabel="mean entropy (nats)", title="Entropy against step")
    lower.plot(numbers, [step["weights"] for step in steps], marker=".")
    lower.set(xlabel="step", ylabel="mean weight", ylim=(-0.02, 1.02))
    save_figure(figure, path)


def plot_prompt_curve(
    path: Path, names: Sequence[str], steps: Sequence[dict[str, Any]], figures: Sequence[str]
) -> None:
    """Figures of evaluated mixtures against the weight of the last adapter.

    With more than two adapters several mixtures share a weight: the best of them make the line.

    Args:
        figures: keys of `steps` to draw; `entropy` is best where it is lowest.
    """
    figure = Figure(figsize=(6, 4), layout="tight")
    axes = figure.subplots()
    for key in figures:
        points = [(step["weights"][-1], step[key]) for step in steps]
        axes.plot(*zip(*points, strict=True), ".", color="0.8")
        best = min if key == "entropy" else max
        line = sorted({x: best(y for other, y in points if other == x) for x, _ in points}.items())
        axes.plot(*zip(*line, strict=True), marker=".", label=key)
    axes.set(xlabel=f"lambda, the weight of {names[-1]}", title=f"{', '.join(figures)} against lambda")
    axes.legend()
    save_figure(figure, path)


def plot_settings(path: Path, names: Sequence[str], weights: Mapping[str, Sequence[float]]) -> None:
    """Where the weight goes in each setting: MoLoRec's Figure 4."""
    figure = Figure(figsize=(6, 3.5), layout="tight")
    axes = figure.subplots()
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        places = [place + (index - (len(names) - 1) / 2) * width for place in range(len(weights))]
        bars = axes.bar(places, [values[index] for values in weights.values()], width, label=name)
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(range(len(weights)), list(weights))
    axes.set(ylabel="weight", ylim=(0, 1.1), title="Weights by entropy in each setting")
    axes.legend()
    save_figure(figure, path)


def plot_prompt_counts(path: Path, runs: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """NDCG@1 and the chosen weights against the number of unlabelled prompts: MoLoRec's Figure 5.

    Args:
        runs: entries with `prompts`, `ndcg@1` and `weights`, several for each number of prompts.
    """
    figure = Figure(figsize=(6, 5), layout="tight")
    upper, lower = figure.subplots(2, sharex=True)
    counts = sorted({run["prompts"] for run in runs})
    groups = [[run for run in runs if run["prompts"] == count] for count in counts]
    upper.plot([run["prompts"] for run in runs], [run["ndcg@1"] for run in runs], ".", color="0.7")
    upper.plot(counts, [_mean([run["ndcg@1"] for run in group]) for group in groups], marker="o")
    upper.set(ylabel="NDCG@1", title="Effect of the number of unlabelled prompts", xscale="log")
    for index, name in enumerate(names):
        lower.plot(counts, [_mean([run["weights"][index] for run in group]) for group in groups], "o-", label=name)
    lower.set(xlabel="unlabelled prompts", ylabel="weight", ylim=(0, 1))
    lower.set_xticks(counts, list(map(str, counts)))
    lower.minorticks_off()
    lower.legend()
    save_figure(figure, path)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
