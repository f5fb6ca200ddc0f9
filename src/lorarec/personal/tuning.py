"""Tuning of a personal LoRA on clicks: binary cross-entropy on the log-odds of yes against no."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import get_cosine_schedule_with_warmup

from lorarec.errors import LorarecError
from lorarec.io import Progress, new_file
from lorarec.personal.config import PersonalizationConfig
from lorarec.personal.event_rows import EventRows
from lorarec.personal.model import PersonalLora
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import score_batch, token_batches, training_mode

ORDER, DROPOUT = 1, 2  # independent random streams of one seed
MAX_NORM = 1.0


def tune(
    personal: PersonalLora,
    rows: EventRows,
    builder: PromptBuilder,
    options: PersonalizationConfig,
    state: Path,
    title: str,
    progress: bool = False,
) -> float:
    """Train router and bank; goes on from `state` if a run that was stopped left one.

    Batches and dropout are pure functions of seed and step, so the weights end up as those of an uninterrupted run.

    Args:
        rows: the few-shot sample.
        builder: what built its prompts.
        state: file that keeps parameters and optimiser every `checkpoint_every` steps.
        title: of the progress bar.

    Returns:
        The mean loss of the last step, in nats.

    Raises:
        LorarecError: the loss is not finite.
    """
    parameters = [parameter for parameter in personal.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
    per_epoch = -(-len(rows) // options.batch_size)
    steps = options.epochs * per_epoch
    schedule = get_cosine_schedule_with_warmup(optimizer, round(options.warmup_ratio * steps), steps)
    parts = {"personal": personal, "optimizer": optimizer, "schedule": schedule}
    loss = _restore(parts, state)

    def cross_entropy(scores: list[torch.Tensor], chosen: np.ndarray) -> torch.Tensor:
        log_odds = torch.cat(scores)
        return binary_cross_entropy_with_logits(log_odds, rows.label[chosen].to(log_odds.device), reduction="sum")

    with training_mode(personal), Progress(title, steps, schedule.last_epoch, progress) as shown:
        for step in range(schedule.last_epoch, steps):
            torch.manual_seed(_seed(options.seed, DROPOUT, step))
            batch = _batch(len(rows), step, per_epoch, options)
            told = (rows.examples, rows.representation, batch, builder, options.token_budget)
            loss = add_gradient(personal, *told, cross_entropy)
            if not np.isfinite(loss):
                raise LorarecError(f"the loss is {loss} at step {step + 1}: lower lr")
            torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            if (step + 1) % options.save_steps == 0:
                _keep(parts, loss, state)
            shown.update(step + 1, f"loss {loss:.3f}")
    return loss


def add_gradient(
    personal: PersonalLora,
    examples: Sequence[Example],
    representation: torch.Tensor,
    batch: np.ndarray,
    builder: PromptBuilder,
    token_budget: int,
    loss_of: Callable[[list[torch.Tensor], np.ndarray], torch.Tensor],
) -> float:
    """Add the gradient of the batch's mean loss, in passes of at most `token_budget` tokens; returns that loss.

    Args:
        representation: (n, d) what the router reads, of every example.
        batch: places among the examples.
        loss_of: from the scores of the branches of some of them, and their places, to the sum of their losses.
    """
    total = 0.0
    for part in token_batches([examples[row].length for row in batch], token_budget):
        rows = batch[part]
        personal.set_weights(personal(representation[rows]))
        scores = score_batch(personal.backbone.model, [examples[row] for row in rows], builder)
        loss = loss_of(scores, rows) / len(batch)
        loss.backward()
        total += loss.item()
    return total


def _batch(count: int, step: int, per_epoch: int, options: PersonalizationConfig) -> np.ndarray:
    """The rows of a step; those of an epoch are as equally many as can be."""
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([options.seed, ORDER, epoch]).permutation(count)
    return order[count * place // per_epoch : count * (place + 1) // per_epoch]


def _seed(*stream: int) -> int:
    return int(np.random.SeedSequence(stream).generate_state(1)[0])


def _keep(parts: dict[str, Any], loss: float, state: Path) -> None:
    with new_file(state) as temporary:
        torch.save({name: part.state_dict() for name, part in parts.items()} | {"loss": loss}, temporary)


def _restore(parts: dict[str, Any], state: Path) -> float:
    """Go back to what `_keep` wrote, if it did; returns the loss of that step."""
    if not state.exists():
        return float("nan")
    kept = torch.load(state, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(kept[name])
    return float(kept["loss"])
