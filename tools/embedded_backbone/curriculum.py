"""The order of the training tasks."""

from collections.abc import Sequence

import numpy as np

from lorarec.prompts import PromptBuilder
from tools.embedded_backbone.episodes import (
    Catalogue,
    ChoiceBatch,
    TextBatch,
    copy_batch,
    history_batch,
    related_batch,
    repeat_batch,
)

TASKS = ("copy", "history", "repeat-verdict", "repeat-likelihood", "related-verdict", "related-likelihood")
#: Shares of the tasks, from a share of the steps on: copies and noisy repeats first, then related titles.
STAGES = (
    (0.0, (0.30, 0.10, 0.40, 0.20, 0.00, 0.00)),
    (0.06, (0.08, 0.08, 0.08, 0.06, 0.58, 0.12)),
)
ROWS = {"text": 20, "verdict": 14, "likelihood": 14}


def draw(
    seed: int, step: int, progress: float, catalogues: Sequence[Catalogue], builders: dict[str, PromptBuilder]
) -> tuple[str, TextBatch | ChoiceBatch]:
    """Return the task and the batch of one step, a pure function of seed and step."""
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
