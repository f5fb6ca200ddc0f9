"""A plot of the weights that a router gives to different users."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lorarec.io import save_figure


def plot_user_weights(path: Path, weights: np.ndarray, clicked: np.ndarray, layers: Sequence[str]) -> None:
    """Write a PNG: users by the first two principal components of their weights, and the mean weights by layer.

    Args:
        weights: Weights of each user, (users, layers, K); those of a layer are on the simplex.
        clicked: Share of clicks among the events of each user, (users,), which colours the points.
        layers: Names of the adapted layers.
    """
    users, count, size = weights.shape
    figure = Figure(figsize=(11, max(4.0, 1.5 + 0.16 * count)), layout="constrained")
    left, right = figure.subplots(1, 2)
    positions, shares = _principal_components(weights.reshape(users, -1))
    points = left.scatter(*positions.T, c=clicked, s=12, cmap="viridis", vmin=0, vmax=1, linewidths=0)
    figure.colorbar(points, ax=left, label="share of clicks among the user's ratings")
    names = [f"component {number} ({share:.0%} of variance)" for number, share in enumerate(shares, start=1)]
    left.set(title=f"Weights of {users:,} users", xlabel=names[0], ylabel=names[1])
    image = right.imshow(weights.mean(0), aspect="auto", cmap="Blues", vmin=0)
    figure.colorbar(image, ax=right, label="mean weight")
    right.set(title="Mean weights over these users", xlabel="meta-LoRA")
    right.set_xticks(range(size), list(map(str, range(1, size + 1))))
    right.set_yticks(range(count), list(layers), fontsize=6)
    save_figure(figure, path)


def _principal_components(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions (n, 2) on the first two principal components and their shares of the variance.

    A component that does not exist is zero.
    """
    u, s, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
    positions, variance = np.zeros((len(values), 2)), np.zeros(2)
    count = min(2, len(s))
    positions[:, :count], variance[:count] = (u * s)[:, :count], s[:count] ** 2
    total = float((s**2).sum())
    return positions, variance / total if total else variance
