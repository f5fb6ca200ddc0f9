"""Click probabilities and scores of candidates under a personal LoRA."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.special import expit

from lorarec.personal.event_rows import EventRows
from lorarec.personal.model import PersonalLora
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import evaluation_mode, map_batches, score_batch


@torch.no_grad()
def probabilities(
    personal: PersonalLora,
    rows: EventRows,
    builder: PromptBuilder,
    token_budget: int = 8192,
    progress: bool = False,
) -> np.ndarray:
    """P(yes) of each row, (n,) float64: every row under its own mixture, or the router's mean one where it falls back.

    Args:
        builder: what built the prompts.
        token_budget: tokens in one pass, padding included; results do not depend on it (up to float rounding).
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
    token_budget: int = 8192,
    progress: bool = False,
) -> list[np.ndarray]:
    """Scores of all branches, each prompt under its own mixture; one (branches,) float32 array per prompt.

    Args:
        weights: from places among the examples to their mixtures (layers, chosen, K).
        token_budget: tokens in one pass, padding included; results do not depend on it (up to float rounding).
    """

    def read(batch: list[int]) -> list[np.ndarray]:
        personal.set_weights(weights(batch).to(personal.backbone.model.device))
        scores = score_batch(personal.backbone.model, [examples[row] for row in batch], builder)
        return [each.float().cpu().numpy() for each in scores]

    with evaluation_mode(personal):
        return map_batches(read, [example.length for example in examples], token_budget, "Scoring", progress)


@torch.no_grad()
def keep_mean_weights(personal: PersonalLora, rows: EventRows) -> None:
    """Store the router's mean weights over some rows in the router."""
    with evaluation_mode(personal):
        personal.router.mean.copy_(personal(rows.representation).mean(1))
