"""A picture of how a router mixes for different users."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def plot_user_weights(path: Path, weights: np.ndarray, clicked: np.ndarray, layers: Sequence[str]) -> None:
    """Write a PNG: users by the first two principal components of their weights, and the mean weights by layer.

    Args:
        weights: (users, layers, K), each row on the simplex.
        clicked: (users,) share of clicks among a user's events, which colours the points.
        layers: names of the adapted layers.
    """
    users, count, size = weights.shape
    canvas = Figure(figsize=(11, max(4.0, 1.5 + 0.16 * count)), layout="constrained")
    left, right = canvas.subplots(1, 2)
    places, shares = _principal_components(weights.reshape(users, -1))
    points = left.scatter(*places.T, c=clicked, s=12, cmap="viridis", vmin=0, vmax=1, linewidths=0)
    canvas.colorbar(points, ax=left, label="share of clicks among the user's ratings")
    names = [f"component {number} ({share:.0%} of variance)" for number, share in enumerate(shares, start=1)]
    left.set(title=f"Weights of {users:,} users", xlabel=names[0], ylabel=names[1])
    shown = right.imshow(weights.mean(0), aspect="auto", cmap="Blues", vmin=0)
    canvas.colorbar(shown, ax=right, label="mean weight")
    right.set(title="Mean weights over these users", xlabel="meta-LoRA")
    right.set_xticks(range(size), list(map(str, range(1, size + 1))))
    right.set_yticks(range(count), list(layers), fontsize=6)
    canvas.savefig(path, dpi=120, format="png")


def _principal_components(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (n, 2) on the first two principal components, and their shares of the variance; zeros for any missing."""
    u, s, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
    places, variance = np.zeros((len(values), 2)), np.zeros(2)
    kept = min(2, len(s))
    places[:, :kept], variance[:kept] = (u * s)[:, :kept], s[:kept] ** 2
    total = float((s**2).sum())
    return places, variance / total if total else variance
