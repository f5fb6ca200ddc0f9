"""Temperatures of adapters, fitted on labelled prompts (Guo et al., On Calibration of Modern Neural Networks, 2017)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from lorarec.lora.injection import MixedModel
from lorarec.lora.mixing_prompts import MixingExamples, require_targets
from lorarec.lora.weight_search import candidate_scores_at_weights
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import score_batch

#: Limits of a temperature; without them it has no minimum if every case, or none, is ranked perfectly.
LOWEST, HIGHEST = 0.05, 20.0


@dataclass(frozen=True)
class Calibration:
    """Divide the scores of a mixture by its temperature: the mean of the adapters' temperatures under its weights.

    With weights per layer it is the mean over the layers as well. The temperature of a single adapter is its own.

    Attributes:
        mixed: The model with mixed layers, in which the weights of the mixture are set.
        temperatures: The temperature of each adapter, (K,).
    """

    mixed: MixedModel
    temperatures: torch.Tensor

    def __call__(self, scores: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the scores (candidates,) of each row of the last batch, divided by the temperature of its mixture."""
        by_layer = [layer.weights for layer in self.mixed.layers.values() if layer.weights is not None]
        weights = torch.stack(by_layer).mean(0)
        temperature = (weights @ self.temperatures.to(weights)).expand(len(scores))
        return [each / divisor.to(each) for each, divisor in zip(scores, temperature, strict=True)]


def candidate_scores(
    model: Any, examples: Sequence[Example], builder: PromptBuilder, calibration: Calibration | None
) -> list[torch.Tensor]:
    """Return the scores (candidates,) of each prompt, calibrated if there is a calibration."""
    scores = list(score_batch(model, examples, builder))
    return scores if calibration is None else calibration(scores)


def fit_temperatures(mixed: MixedModel, size: int, labelled: MixingExamples, token_budget: int | None) -> torch.Tensor:
    """Fit the temperature of each adapter by itself, and return them, (K,).

    Args:
        mixed: The model with mixed layers.
        size: The number K of adapters.
        labelled: Prompts with their target items.
        token_budget: The maximum number of tokens in one forward pass, padding included; None for the default of the
            device.

    Raises:
        LorarecError: There are no prompts, the numbers of prompts and targets differ, or a score is NaN or infinite.
    """
    targets = require_targets(labelled)
    scores = candidate_scores_at_weights(mixed, torch.eye(size, dtype=torch.float64), labelled, token_budget)
    return torch.tensor([fit_temperature(of_adapter, targets) for of_adapter in scores], dtype=torch.float64)


def fit_temperature(scores: Sequence[np.ndarray], targets: Sequence[int]) -> float:
    """Return the temperature T with the lowest mean log-loss of softmax(scores / T), from `LOWEST` to `HIGHEST`.

    Args:
        scores: The scores (candidates,) of each case.
        targets: The index of the target item of each case.
    """
    # The log-loss of a case is logsumexp((s - s_target) / T), so shorter cases are filled up with scores of -infinity.
    above = np.full((len(scores), max(map(len, scores))), -np.inf)
    for row, (of_case, target) in enumerate(zip(scores, targets, strict=True)):
        above[row, : len(of_case)] = np.subtract(of_case, of_case[target], dtype=np.float64)

    def log_loss(log_temperature: float) -> float:
        return float(logsumexp(above / np.exp(log_temperature), axis=1).mean())

    # The log-loss is convex in 1 / T and therefore has a single minimum in log T.
    found = minimize_scalar(log_loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    return float(np.exp(found.x))
