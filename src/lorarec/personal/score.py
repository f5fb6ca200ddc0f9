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
    fallback: torch.Tensor,
    token_budget: int = 8192,
    progress: bool = False,
) -> np.ndarray:
    """P(yes) of each row, (n,) float64: longest prompts first, every row under its own mixture.

    Args:
        personal: in evaluation mode.
        builder: what built the prompts.
        fallback: (layers, K) weights of the rows whose user is not `known`.
        token_budget: tokens in one pass, padding included; results do not depend on it (up to float rounding).
    """
    found = np.empty(len(rows))
    batches = list(token_batches([example.length for example in rows.examples], token_budget))
    for batch in track(batches, "Scoring", disable=not progress, transient=True):
        weights = personal(rows.representation[batch])
        known = rows.known[batch].to(weights.device)[:, None]
        personal.set_weights(torch.where(known, weights, fallback[:, None].to(weights)))
        scores = score_batch(personal.backbone.model, [rows.examples[row] for row in batch], builder)
        found[batch] = torch.cat(scores).double().sigmoid().cpu().numpy()
    return found


@torch.no_grad()
def mean_weights(personal: PersonalLora, rows: Rows) -> torch.Tensor:
    """The router's mean weights over some rows, (layers, K); `personal` is in evaluation mode."""
    return personal(rows.representation).mean(1)
