"""Plots of the weights of mixtures and of the searches for them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from lorarec.io import save_figure
from lorarec.lora.objectives import Agreement, Entropy
from lorarec.lora.weight_search import EvaluatedMixture

LOWER_IS_BETTER = (Entropy.metric, Agreement.metric)


def plot_weights(path: Path, names: Sequence[str], weights: Sequence[float] | Mapping[str, Sequence[float]]) -> None:
    """Plot one bar per adapter, or one stacked bar per layer, from the first layer (top) to the last."""
    if not isinstance(weights, Mapping):
        figure = Figure(figsize=(5, 3), layout="tight")
        axes = figure.subplots()
        axes.bar(names, weights)
        axes.set(ylabel="weight", ylim=(min(0, *weights), max(1, *weights)), title="Weights of the mixture")
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


def plot_search(path: Path, steps: Sequence[EvaluatedMixture], metric: str) -> None:
    """Plot an objective, `entropy` or `divergence`, at every evaluation, and each adapter's mean weight."""
    figure = Figure(figsize=(6, 5), layout="tight")
    upper, lower = figure.subplots(2, sharex=True)
    numbers = range(len(steps))
    upper.plot(numbers, [step.metrics[metric] for step in steps], marker=".")
    upper.set(ylabel=f"mean {metric} (nats)", title=f"{metric.capitalize()} against step")
    lower.plot(numbers, [step.weights for step in steps], marker=".")
    lower.set(xlabel="step", ylabel="mean weight", ylim=(-0.02, 1.02))
    save_figure(figure, path)


def plot_prompt_curve(
    path: Path, names: Sequence[str], steps: Sequence[EvaluatedMixture], metrics: Sequence[str]
) -> None:
    """Plot metrics of evaluated mixtures against the weight of the last adapter.

    With more than two adapters several mixtures have the same weight; the line connects the best of them.

    Args:
        path: Path of the PNG file.
        names: The names of the adapters.
        steps: The mixtures that were evaluated.
        metrics: The metrics to plot; the lowest `entropy` or `divergence` is the best one, and the highest value of
            any other metric.
    """
    figure = Figure(figsize=(6, 4), layout="tight")
    axes = figure.subplots()
    for metric in metrics:
        points = [(step.weights[-1], step.metrics[metric]) for step in steps]
        axes.plot(*zip(*points, strict=True), ".", color="0.8")
        best = min if metric in LOWER_IS_BETTER else max
        line = sorted({x: best(y for other, y in points if other == x) for x, _ in points}.items())
        axes.plot(*zip(*line, strict=True), marker=".", label=metric)
    axes.set(xlabel=f"lambda, the weight of {names[-1]}", title=f"{', '.join(metrics)} against lambda")
    axes.legend()
    save_figure(figure, path)


def plot_settings(path: Path, names: Sequence[str], weights: Mapping[str, Sequence[float]]) -> None:
    """Plot the weights that were chosen in each setting, as in MoLoRec's Figure 4."""
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


def plot_prompt_counts(path: Path, runs: Sequence[tuple[int, EvaluatedMixture]], names: Sequence[str]) -> None:
    """Plot NDCG@1 and the chosen weights against the number of unlabelled prompts, as in MoLoRec's Figure 5.

    Args:
        path: Path of the PNG file.
        runs: Numbers of prompts with the mixtures that were chosen on them, several for each number.
        names: The names of the adapters.
    """
    figure = Figure(figsize=(6, 5), layout="tight")
    upper, lower = figure.subplots(2, sharex=True)
    counts = sorted({count for count, _ in runs})
    groups = [[mixture for each, mixture in runs if each == count] for count in counts]
    upper.plot([count for count, _ in runs], [mixture.metrics["ndcg@1"] for _, mixture in runs], ".", color="0.7")
    upper.plot(counts, [_mean([mixture.metrics["ndcg@1"] for mixture in group]) for group in groups], marker="o")
    upper.set(ylabel="NDCG@1", title="Effect of the number of unlabelled prompts", xscale="log")
    for index, name in enumerate(names):
        means = [_mean([mixture.weights[index] for mixture in group]) for group in groups]
        lower.plot(counts, means, "o-", label=name)
    lower.set(xlabel="unlabelled prompts", ylabel="weight", ylim=(0, 1))
    lower.set_xticks(counts, list(map(str, counts)))
    lower.minorticks_off()
    lower.legend()
    save_figure(figure, path)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
