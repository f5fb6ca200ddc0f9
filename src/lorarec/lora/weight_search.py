"""Helpers of all searches for weights: scores under many mixtures at once, and the trace of a search."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch

from lorarec.lora.injection import MixedModel
from lorarec.lora.mixing_prompts import MixingExamples
from lorarec.prompts import Example
from lorarec.scoring import map_batches, require_finite, score_batch, scores_to_numpy, tokens_per_pass

Result = TypeVar("Result")
ExampleT = TypeVar("ExampleT", bound=Example)


@dataclass(frozen=True)
class EvaluatedMixture:
    """A mixture and its metrics.

    Attributes:
        weights: The weight of each adapter; the mean over the layers where each layer has its own.
        metrics: Name -> value, such as `entropy`, `divergence` (both in nats) or `ndcg@10`.
    """

    weights: list[float]
    metrics: dict[str, float]

    def as_dict(self) -> dict[str, list[float] | float]:
        """Return the weights and the metrics for a JSON file."""
        return {"weights": self.weights, **self.metrics}


@dataclass(frozen=True)
class Trace:
    """The mixtures that a search has evaluated.

    Attributes:
        steps: The mixtures in the order of their evaluation.
        stopped: The reason why the search ended.
        counts: Further numbers for `mix_trace.json`.
    """

    steps: list[EvaluatedMixture] = field(default_factory=list)
    stopped: str = ""
    counts: dict[str, int] = field(default_factory=dict)

    def listed(self) -> list[dict[str, list[float] | float]]:
        """Return the steps, with their numbers, for a JSON file."""
        return [{"step": number, **step.as_dict()} for number, step in enumerate(self.steps)]


@torch.no_grad()
def score_at_weights(
    mixed: MixedModel,
    points: torch.Tensor,
    examples: Sequence[ExampleT],
    read: Callable[[Any, list[ExampleT]], Iterable[Result]],
    length: Callable[[ExampleT], int],
    token_budget: int | None,
) -> list[list[Result]]:
    """Evaluate every example under every mixture.

    Every pair of an example and a mixture is a row of a batch; the mixed layers give each row its own weights.

    Args:
        mixed: The model with mixed layers.
        points: The weights of the mixtures, (points, K).
        examples: The prompts.
        read: A function from a model and a batch of examples to one result per example.
        length: A function from an example to the number of its tokens.
        token_budget: The maximum number of tokens in one forward pass, padding included; None for the default of the
            device.

    Returns:
        For each point, one result per example.
    """
    rows = [(example, point) for example in range(len(examples)) for point in range(len(points))]
    points = points.to(mixed.model.device)

    def read_rows(batch: list[int]) -> Iterable[Result]:
        mixed.set_weights(points[[rows[row][1] for row in batch]])
        return read(mixed.model, [examples[rows[row][0]] for row in batch])

    budget = tokens_per_pass(mixed.model, token_budget)
    results = map_batches(read_rows, [length(examples[example]) for example, _ in rows], budget)
    return [results[point :: len(points)] for point in range(len(points))]


def candidate_scores_at_weights(
    mixed: MixedModel, points: torch.Tensor, examples: MixingExamples, token_budget: int | None
) -> list[list[np.ndarray]]:
    """Score the candidates of every prompt under every mixture; arguments as for `score_at_weights`.

    Returns:
        For each point, the scores (candidates,) of each prompt.

    Raises:
        LorarecError: A score is NaN or infinite.
    """

    def read(model: Any, batch: list[Example]) -> list[np.ndarray]:
        return require_finite(scores_to_numpy(score_batch(model, batch, examples.builder)))

    return score_at_weights(mixed, points, examples.prompts, read, lambda example: example.length, token_budget)
