"""Search for the weights with the lowest value of an objective on unlabelled prompts (MoLoRec, eqs. 9-10).

Only the weights change; the adapters and the backbone are frozen. No function here takes a label.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from lorarec.errors import LorarecError
from lorarec.lora.injection import MixedModel
from lorarec.lora.objectives import UnlabelledObjective
from lorarec.lora.weight_search import EvaluatedMixture, ExampleT, Trace, score_at_weights
from lorarec.scoring import NOT_FINITE, token_batches, tokens_per_pass

#: Learning rate of Adam on the logits: ten steps in one direction take a weight of two from 0.50 to 0.98.
LEARNING_RATE = 0.2
MAX_STEPS = 50
#: The descent stops when `PATIENCE` steps together have not lowered the objective by the share `MIN_IMPROVEMENT`.
PATIENCE, MIN_IMPROVEMENT = 5, 0.005
#: The first points of the curve over two adapters, and the smallest distance between two evaluations.
FIRST_POINTS, RESOLUTION = (0.0, 0.25, 0.5, 0.75, 1.0), 0.02


def unlabelled_weights(
    mixed: MixedModel,
    size: int,
    prompts: Sequence[ExampleT],
    objective: UnlabelledObjective[ExampleT],
    scope: str,
    token_budget: int | None = None,
) -> tuple[torch.Tensor, Trace]:
    """Choose the weights at which an objective is lowest on unlabelled prompts.

    Args:
        mixed: The model with mixed layers.
        size: The number K of adapters.
        prompts: The prompts, without labels.
        objective: The objective to minimise.
        scope: `model` for one set of weights, or `layer` for one set per layer.
        token_budget: The maximum number of tokens in one forward pass, padding included; None for the default of the
            device.

    Returns:
        The weights, (K,), or (layers, K) in the order of `mixed.layers`, and the mixtures that were evaluated.

    Raises:
        LorarecError: There are no prompts, or the objective is NaN or infinite at a mixture.
    """
    if not prompts:
        raise LorarecError("the search for weights needs unlabelled prompts: give some, 50 to 100 are enough")
    if scope == "model" and size == 2:
        return search_pair(mixed, prompts, objective, token_budget)
    return descend(mixed, size, prompts, objective, scope == "layer", token_budget)


def search_pair(
    mixed: MixedModel, prompts: Sequence[ExampleT], objective: UnlabelledObjective[ExampleT], token_budget: int | None
) -> tuple[torch.Tensor, Trace]:
    """Find the lowest point (1 - x, x) of the curve of an objective over two adapters, without gradients.

    The curve is evaluated at five points, as rows of the same batches. Then it is evaluated where the parabola through
    the lowest point and its neighbours has its minimum, until that is close to a known point. This takes six or seven
    forward passes, where gradient descent takes dozens of forward and backward passes.

    A curve with several minima, such as those of untrained adapters with large weights can be, may have a lower one
    between the first points. More first points did not find it reliably on such curves.
    """
    curve: dict[float, float] = {}
    steps: list[EvaluatedMixture] = []
    pending = list(FIRST_POINTS)
    while pending:
        points = torch.tensor([[1 - x, x] for x in pending], dtype=torch.float64)
        values = score_at_weights(mixed, points, prompts, objective, objective.length, token_budget)
        for x, of_point in zip(pending, values, strict=True):
            curve[x] = _finite(float(torch.stack(of_point).double().mean()), objective.metric)
            steps.append(EvaluatedMixture([1 - x, x], {objective.metric: curve[x]}))
        pending = _next_point(curve)
    best = min(curve, key=lambda x: (curve[x], abs(x - 0.5)))
    return torch.tensor([1 - best, best], dtype=torch.float64), Trace(steps, "minimum of the curve")


def _next_point(curve: dict[float, float]) -> list[float]:
    """Return the minimum of the parabola through the lowest point and its neighbours, unless it is known."""
    known = sorted(curve)
    lowest = min(max(known.index(min(known, key=lambda x: curve[x])), 1), len(known) - 2)
    near = known[lowest - 1 : lowest + 2]
    a, b, _ = np.polyfit(near, [curve[x] for x in near], 2)
    if a <= 0:  # The parabola has no minimum inside: an end is lowest.
        return []
    vertex = min(max(-b / (2 * a), 0.0), 1.0)
    return [] if min(abs(vertex - x) for x in known) < RESOLUTION else [float(vertex)]


def descend(
    mixed: MixedModel,
    size: int,
    prompts: Sequence[ExampleT],
    objective: UnlabelledObjective[ExampleT],
    per_layer: bool,
    token_budget: int | None,
) -> tuple[torch.Tensor, Trace]:
    """Minimise an objective by Adam on the logits of the weights, from equal weights.

    Args:
        mixed: The model with mixed layers.
        size: The number K of adapters.
        prompts: The prompts, without labels.
        objective: The objective to minimise.
        per_layer: Whether each adapted layer has its own weights.
        token_budget: The maximum number of tokens in one pass, padding included; None for the default of the device.

    Returns:
        The weights with the lowest value that was seen, (layers, K) in the order of `mixed.layers` or (K,), and the
        mixtures that were evaluated.
    """
    names = list(mixed.layers)
    logits = torch.zeros(len(names) if per_layer else 1, size, device=mixed.model.device, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE)
    steps: list[EvaluatedMixture] = []
    best, best_weights = float("inf"), logits.detach().softmax(1)
    mark, mark_step, stopped = float("inf"), 0, "step limit"
    with frozen(mixed.model):
        for step in range(MAX_STEPS):
            value = value_and_gradient(mixed, names, logits, prompts, objective, token_budget)
            weights = logits.detach().softmax(1)
            steps.append(EvaluatedMixture(weights.mean(0).tolist(), {objective.metric: value}))
            if value < best:
                best, best_weights = value, weights
            if value < mark * (1 - MIN_IMPROVEMENT):
                mark, mark_step = value, step
            if step - mark_step >= PATIENCE:
                stopped = "plateau"
                break
            optimizer.step()
    chosen = best_weights.double().cpu()
    return (chosen if per_layer else chosen[0]), Trace(steps, stopped)


def value_and_gradient(
    mixed: MixedModel,
    names: Sequence[str],
    logits: torch.Tensor,
    prompts: Sequence[ExampleT],
    objective: UnlabelledObjective[ExampleT],
    token_budget: int | None,
) -> float:
    """Return the mean of an objective at the weights softmax(logits); its gradient is in `logits.grad`.

    Args:
        mixed: The model with mixed layers.
        names: The names of the mixed layers.
        logits: The logits of the weights, (layers or 1, K).
        prompts: The prompts, without labels.
        objective: The objective.
        token_budget: The maximum number of tokens in one pass, padding included; None for the default of the device.
    """
    logits.grad = None
    total = 0.0
    lengths = [objective.length(prompt) for prompt in prompts]
    for batch in token_batches(lengths, tokens_per_pass(mixed.model, token_budget)):
        weights = logits.softmax(1)
        mixed.set_weights(dict(zip(names, weights.expand(len(names), -1), strict=True)))
        loss = objective(mixed.model, [prompts[i] for i in batch]).sum() / len(prompts)
        loss.backward()
        total += float(loss.detach())
    return _finite(total, objective.metric)


def _finite(value: float, metric: str) -> float:
    """Return the value of an objective.

    Raises:
        LorarecError: It is NaN or infinite, so that there is no lowest one.
    """
    if not math.isfinite(value):
        raise LorarecError(f"the {metric} of a mixture is {value}: {NOT_FINITE}")
    return value


@contextmanager
def frozen(model: torch.nn.Module) -> Iterator[None]:
    """Turn off the gradients of all parameters of a model, and turn them on again at the end."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
