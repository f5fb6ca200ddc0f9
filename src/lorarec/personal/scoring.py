"""Click probabilities and scores of candidates under a personal LoRA."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.special import expit

from lorarec.personal.event_rows import EventRows
from lorarec.personal.model import PersonalLora
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import evaluation_mode, map_batches, score_batch, scores_to_numpy, tokens_per_pass


@torch.no_grad()
def probabilities(
    personal: PersonalLora,
    rows: EventRows,
    builder: PromptBuilder,
    token_budget: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Return the probability of a click of each row, (rows,) float64, under the mixture of the row.

    A row that falls back has the router's mean mixture.

    Args:
        personal: Personal LoRA.
        rows: Rows to be scored.
        builder: Builder of the prompts.
        token_budget: Tokens per forward pass, padding included; None for the default of the device. It changes results
            by float rounding at most.
        progress: Show a progress bar on standard error.
    """

    def weights(chosen: list[int]) -> torch.Tensor:
        own = personal(rows.representation[chosen])
        mean = rows.falls_back[chosen].to(own.device)[:, None]
        return torch.where(mean, personal.router.mean[:, None], own)

    scores = np.concatenate(user_scores(personal, rows.examples, weights, builder, token_budget, progress))
    return np.asarray(expit(scores.astype(np.float64)))


@torch.no_grad()
def user_scores(
    personal: PersonalLora,
    examples: Sequence[Example],
    weights: Callable[[list[int]], torch.Tensor],
    builder: PromptBuilder,
    token_budget: int | None = None,
    progress: bool = False,
) -> list[np.ndarray]:
    """Return the scores of all branches, (branches,) float32 per prompt, each prompt under a mixture of its own.

    Args:
        personal: Personal LoRA.
        examples: Prompts with their branches.
        weights: Function that returns the mixtures (layers, indices, K) of the prompts at some indices.
        builder: Builder of the prompts.
        token_budget: Tokens per forward pass, padding included; None for the default of the device. It changes results
            by float rounding at most.
        progress: Show a progress bar on standard error.
    """

    def read(batch: list[int]) -> list[np.ndarray]:
        personal.set_weights(weights(batch).to(personal.backbone.model.device))
        scores = score_batch(personal.backbone.model, [examples[row] for row in batch], builder)
        return scores_to_numpy(scores)

    with evaluation_mode(personal):
        budget = tokens_per_pass(personal.backbone.model, token_budget)
        return map_batches(read, [example.length for example in examples], budget, "Scoring", progress)


@torch.no_grad()
def set_mean_weights(personal: PersonalLora, rows: EventRows) -> None:
    """Set the router's mean weights to the mean over some rows."""
    with evaluation_mode(personal):
        personal.router.mean.copy_(personal(rows.representation).mean(1))
