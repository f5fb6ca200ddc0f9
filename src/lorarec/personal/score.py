"""Click probabilities of a personal LoRA."""

import numpy as np
import torch
from rich.progress import track

from lorarec.personal.model import PersonalLora
from lorarec.personal.rows import Rows
from lorarec.prompts import PromptBuilder
from lorarec.scoring import score_batch, token_batches


@torch.no_grad()
def probabilities(
    personal: PersonalLora,
    rows: Rows,
    builder: PromptBuilder,
    token_budget: int = 8192,
    progress: bool = False,
) -> np.ndarray:
    """P(yes) of each row, (n,) float64: longest prompts first, every row under its own mixture, or the
    router's mean one where it falls back; offsets are added to the log-odds.

    Args:
        personal: in evaluation mode.
        builder: what built the prompts.
        token_budget: tokens in one pass, padding included; results do not depend on it (up to float rounding).
    """
    found = np.empty(len(rows))
    batches = list(token_batches([example.length for example in rows.examples], token_budget))
    for batch in track(batches, "Scoring", disable=not progress, transient=True):
        weights = personal(rows.representation[batch])
        mean = rows.falls_back[batch].to(weights.device)[:, None]
        personal.set_weights(torch.where(mean, personal.router.mean[:, None], weights))
        scores = score_batch(personal.backbone.model, [rows.examples[row] for row in batch], builder)
        found[batch] = (torch.cat(scores).cpu() + rows.offset[batch]).double().sigmoid().numpy()
    return found


@torch.no_grad()
def keep_mean_weights(personal: PersonalLora, rows: Rows) -> None:
    """Let the router keep its mean weights over some rows; `personal` is in evaluation mode."""
    personal.router.mean.copy_(personal(rows.representation).mean(1))
