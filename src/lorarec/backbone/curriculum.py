"""Which task comes when, and its loss."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import log_softmax
from transformers import Qwen2ForCausalLM

from lorarec.backbone.episodes import (
    Catalogue,
    ChoiceBatch,
    TextBatch,
    copy_batch,
    history_batch,
    related_batch,
    repeat_batch,
)
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import score_batch, token_log_probs, trunk

TASKS = ("copy", "history", "repeat-verdict", "repeat-likelihood", "related-verdict", "related-likelihood")
#: Shares of the tasks from a point of the build on: copies and noisy repeats first, then relatedness.
STAGES = (
    (0.0, (0.30, 0.10, 0.40, 0.20, 0.00, 0.00)),
    (0.06, (0.08, 0.08, 0.08, 0.06, 0.58, 0.12)),
)
ROWS = {"text": 20, "verdict": 14, "likelihood": 14}


def draw(
    seed: int, step: int, progress: float, catalogues: Sequence[Catalogue], builders: dict[str, PromptBuilder]
) -> tuple[str, TextBatch | ChoiceBatch]:
    """The batch of one step: a pure function of seed and step."""
    rng = np.random.default_rng((seed, step))
    starts = [start for start, _ in STAGES]
    number = sum(progress >= start for start in starts) - 1
    end = (*starts, 1.0)[number + 1]
    within = (progress - starts[number]) / (end - starts[number])
    task = str(rng.choice(TASKS, p=STAGES[number][1]))
    kind, _, readout = task.partition("-")
    if not readout:
        make = copy_batch if kind == "copy" else history_batch
        return task, make(rng, catalogues, builders["verdict"], ROWS["text"])
    difficulty = within if number == (0 if kind == "repeat" else 1) else 1.0
    choose = repeat_batch if kind == "repeat" else related_batch
    return task, choose(rng, catalogues, builders[readout], ROWS[readout], difficulty)


def batch_loss(model: Qwen2ForCausalLM, batch: TextBatch | ChoiceBatch) -> tuple[torch.Tensor, float | None, int]:
    """Loss, share of prompts whose likeliest candidate came first (verdicts only) and number of tokens.

    Verdicts are trained listwise over the candidates. The likelihood readout is trained by the next-token loss of the
    likeliest title given the list: raw sums of log-probabilities are too wild for a listwise loss this early.
    """
    if isinstance(batch, TextBatch):
        return _text_loss(model, batch)
    answers = [int(target.argmax()) for target in batch.targets]
    if batch.builder.readout == "likelihood":
        right = [Example(e.prompt, [e.branches[a]]) for e, a in zip(batch.examples, answers, strict=True)]
        total = torch.cat(score_batch(model, right, batch.builder)).sum()
        return -total / sum(len(e.branches[0]) for e in right), None, sum(e.length for e in right)
    scores = score_batch(model, batch.examples, batch.builder)
    targets = [torch.from_numpy(target).to(torch.float32) for target in batch.targets]
    losses = [-(t * log_softmax(s, 0)).sum() for s, t in zip(scores, targets, strict=True)]
    hits = sum(int(s.argmax()) == a for s, a in zip(scores, answers, strict=True))
    return torch.stack(losses).mean(), hits / len(losses), sum(e.length for e in batch.examples)


def _text_loss(model: Qwen2ForCausalLM, batch: TextBatch) -> tuple[torch.Tensor, None, int]:
    length = max(map(len, batch.rows))
    ids = torch.zeros(len(batch.rows), length, dtype=torch.long)
    for row, tokens in enumerate(batch.rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    hidden = trunk(model)(input_ids=ids, use_cache=False).last_hidden_state
    rows = [r for r, tokens in enumerate(batch.rows) for _ in range(batch.starts[r], len(tokens))]
    columns = [c for r, tokens in enumerate(batch.rows) for c in range(batch.starts[r], len(tokens))]
    targets = ids[rows, columns]
    log_probs = token_log_probs(model, hidden[rows, [c - 1 for c in columns]], targets)
    return -log_probs.mean(), None, sum(map(len, batch.rows))
