"""Weights that make the mixture surest of unlabelled prompts (MoLoRec, arXiv 2502.08271, eqs. 9-10).

Only the weights move: adapters and backbone stay as they are. No function here takes a label.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from lorarec.lora.injection import MixedModel
from lorarec.lora.mixture_batches import score_at_weights
from lorarec.lora.objectives import Entropy
from lorarec.lora.trace import Trace
from lorarec.prompts import Example
from lorarec.scoring import token_batches

#: Adam's step on the logits: ten steps in one direction take a weight of two from 0.50 to 0.98.
LEARNING_RATE = 0.2
MOST_STEPS = 50
#: Stop when this many steps together have not lowered the entropy by this share.
PATIENCE, LEAST_GAIN = 5, 0.005
#: The curve over two adapters: where it is evaluated first, and how near two evaluations may be.
CURVE, RESOLUTION = (0.0, 0.25, 0.5, 0.75, 1.0), 0.02


def search_pair(
    mixed: MixedModel, prompts: Sequence[Example], objective: Entropy, token_budget: int
) -> tuple[torch.Tensor, Trace]:
    """One weight for two adapters, without gradients: the lowest point (1 - x, x) of the entropy curve.

    The curve is evaluated at five points as rows of the same batches, then where the parabola through the lowest
    point and its neighbours has its minimum, until that is nowhere new: six or seven forward passes in place of the
    dozens of forward and backward passes that descent takes.
    """
    curve: dict[float, float] = {}
    steps: list[dict[str, Any]] = []
    wanted = list(CURVE)
    while wanted:
        points = torch.tensor([[1 - x, x] for x in wanted], dtype=torch.float64)
        found = score_at_weights(mixed, points, prompts, objective, objective.length, token_budget)
        for x, values in zip(wanted, found, strict=True):
            curve[x] = float(torch.stack(values).double().mean())
            steps.append({"step": len(steps), "weights": [1 - x, x], "entropy": curve[x]})
        wanted = _next_point(curve)
    best = min(curve, key=lambda x: (curve[x], abs(x - 0.5)))
    return torch.tensor([1 - best, best], dtype=torch.float64), Trace(steps, "minimum of the curve")


def _next_point(curve: dict[float, float]) -> list[float]:
    """Where the parabola through the lowest point and its neighbours is lowest, unless that was evaluated."""
    known = sorted(curve)
    lowest = min(max(known.index(min(known, key=lambda x: curve[x])), 1), len(known) - 2)
    near = known[lowest - 1 : lowest + 2]
    a, b, _ = np.polyfit(near, [curve[x] for x in near], 2)
    if a <= 0:  # no minimum inside: an end is lowest
        return []
    vertex = min(max(-b / (2 * a), 0.0), 1.0)
    return [] if min(abs(vertex - x) for x in known) < RESOLUTION else [float(vertex)]


def descend(
    mixed: MixedModel, size: int, prompts: Sequence[Example], objective: Entropy, per_layer: bool, token_budget: int
) -> tuple[torch.Tensor, Trace]:
    """Adam on the logits of the weights, from uniform, until the entropy stops falling.

    Args:
        size: number K of adapters.
        per_layer: weights for each adapted layer, otherwise one set for the model.

    Returns:
        Weights (layers, K) in the order of `mixed.layers`, or (K,); those with the lowest entropy seen.
    """
    names = list(mixed.layers)
    logits = torch.zeros(len(names) if per_layer else 1, size, device=mixed.model.device, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=LEARNING_RATE)
    steps: list[dict[str, Any]] = []
    best, best_weights = float("inf"), logits.detach().softmax(1)
    mark, mark_step, stopped = float("inf"), 0, "step limit"
    with frozen(mixed.model):
        for step in range(MOST_STEPS):
            value = entropy_and_gradient(mixed, names, logits, prompts, objective, token_budget)
            weights = logits.detach().softmax(1)
            steps.append({"step": step, "entropy": value, "weights": weights.mean(0).tolist()})
            if value < best:
                best, best_weights = value, weights
            if value < mark * (1 - LEAST_GAIN):
                mark, mark_step = value, step
            if step - mark_step >= PATIENCE:
                stopped = "plateau"
                break
            optimiser.step()
    chosen = best_weights.double().cpu()
    return (chosen if per_layer else chosen[0]), Trace(steps, stopped)


def entropy_and_gradient(
    mixed: MixedModel,
    names: Sequence[str],
    logits: torch.Tensor,
    prompts: Sequence[Example],
    objective: Entropy,
    token_budget: int,
) -> float:
    """Mean entropy over the prompts at softmax(logits), (layers or 1, K); leaves the gradient in `logits.grad`."""
    logits.grad = None
    total = 0.0
    for batch in token_batches([objective.length(prompt) for prompt in prompts], token_budget):
        weights = logits.softmax(1)
        mixed.set_weights(dict(zip(names, weights.expand(len(names), -1), strict=True)))
        loss = objective(mixed.model, [prompts[i] for i in batch]).sum() / len(prompts)
        loss.backward()
        total += float(loss.detach())
    return total


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Switch gradients of all of the model's own parameters off for a while."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
