"""Training of a personal LoRA on clicks, by the binary cross-entropy of the log-odds of yes against no."""

from collections.abc import Callable, Mapping, Sequence
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
from lorarec.scoring import score_batch, token_batches, tokens_per_pass, training_mode
from lorarec.training import TrackedRun

ORDER, DROPOUT = 1, 2  # independent random streams of one seed
MAX_NORM = 1.0


def tune(
    personal: PersonalLora,
    rows: EventRows,
    builder: PromptBuilder,
    config: PersonalizationConfig,
    state: Path,
    title: str,
    progress: bool = False,
    run: TrackedRun | None = None,
) -> float:
    """Train router and bank, from the checkpoint of an interrupted run if there is one.

    Batches and dropout are pure functions of seed and step, so the weights are those of an uninterrupted run.

    Args:
        personal: Personal LoRA to train.
        rows: Few-shot sample.
        builder: Builder of the prompts.
        config: Options.
        state: Path of the checkpoint of parameters and optimizer, written every `save_steps` steps.
        title: Title of the progress bar.
        progress: Show the progress bar on standard error.
        run: Run of trackers, which gets loss and learning rate a hundred times, under the name of the checkpoint.

    Returns:
        The mean loss of the last step, in nats.

    Raises:
        LorarecError: If the loss is not finite.
    """
    parameters = [parameter for parameter in personal.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    per_epoch = -(-len(rows) // config.batch_size)
    steps = config.epochs * per_epoch
    schedule = get_cosine_schedule_with_warmup(optimizer, round(config.warmup_ratio * steps), steps)
    parts = {"personal": personal, "optimizer": optimizer, "schedule": schedule}
    loss = _restore(parts, state)
    logged_every = max(1, steps // 100)

    def cross_entropy(scores: list[torch.Tensor], chosen: np.ndarray) -> torch.Tensor:
        log_odds = torch.cat(scores)
        return binary_cross_entropy_with_logits(log_odds, rows.label[chosen].to(log_odds.device), reduction="sum")

    with training_mode(personal), Progress(title, steps, schedule.last_epoch, progress) as bar:
        for step in range(schedule.last_epoch, steps):
            torch.manual_seed(_seed(config.seed, DROPOUT, step))
            batch = _batch(len(rows), step, per_epoch, config)
            loss = add_gradient(
                personal, rows.examples, rows.representation, batch, builder, config.token_budget, cross_entropy
            )
            if not np.isfinite(loss):
                raise LorarecError(f"the loss is {loss} at step {step + 1}: lower the learning rate")
            torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)
            rate = schedule.get_last_lr()[0]
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            if run is not None and (step + 1) % logged_every == 0:
                run.log({f"{state.stem}/loss": loss, f"{state.stem}/learning_rate": rate}, step + 1)
            if (step + 1) % config.save_steps == 0:
                _save(parts, loss, state)
            bar.update(step + 1, f"loss {loss:.3f}")
    return loss


def add_gradient(
    personal: PersonalLora,
    examples: Sequence[Example],
    representation: torch.Tensor,
    batch: np.ndarray,
    builder: PromptBuilder,
    token_budget: int | None,
    loss_of: Callable[[list[torch.Tensor], np.ndarray], torch.Tensor],
) -> float:
    """Add the gradient of a batch's mean loss, in passes of at most `token_budget` tokens, and return that loss.

    Args:
        personal: Personal LoRA.
        examples: Prompts with their branches.
        representation: Representation of each example, (examples, d), which the router reads.
        batch: Indices of the examples of the batch.
        builder: Builder of the prompts.
        token_budget: Tokens per forward pass, padding included; None for the default of the device.
        loss_of: Function of the scores of some examples' branches, and of their indices, that returns the sum of their
            losses.
    """
    total = 0.0
    budget = tokens_per_pass(personal.backbone.model, token_budget)
    for part in token_batches([examples[row].length for row in batch], budget):
        rows = batch[part]
        personal.set_weights(personal(representation[rows]))
        scores = score_batch(personal.backbone.model, [examples[row] for row in rows], builder)
        loss = loss_of(scores, rows) / len(batch)
        loss.backward()
        total += loss.item()
    return total


def _batch(count: int, step: int, per_epoch: int, config: PersonalizationConfig) -> np.ndarray:
    """Return the rows of a step; the steps of an epoch differ by one row at most."""
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([config.seed, ORDER, epoch]).permutation(count)
    return order[count * place // per_epoch : count * (place + 1) // per_epoch]


def _seed(*stream: int) -> int:
    return int(np.random.SeedSequence(stream).generate_state(1)[0])


def _save(parts: Mapping[str, Any], loss: float, state: Path) -> None:
    with new_file(state) as temporary:
        torch.save({name: part.state_dict() for name, part in parts.items()} | {"loss": loss}, temporary)


def _restore(parts: Mapping[str, Any], state: Path) -> float:
    """Load what `_save` wrote, if the file exists, and return the loss of that step, else NaN."""
    if not state.exists():
        return float("nan")
    saved = torch.load(state, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return float(saved["loss"])
