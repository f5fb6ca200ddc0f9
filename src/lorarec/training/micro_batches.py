"""The micro-batches of a training run as one list, each a pure function of its index."""

import math
from functools import lru_cache
from typing import TypedDict

import numpy as np
from torch.utils.data import Dataset as TorchDataset

from lorarec.errors import LorarecError
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import TOKEN_BUDGET
from lorarec.training.cases import TrainingCases
from lorarec.training.config import TrainingConfig

DROPOUT = 4  # a random stream independent of those of the cases
SHARED = (4, 2, 1)  # a step has a multiple of this many micro-batches, so that so many processes get the same ones


class MicroBatch(TypedDict):
    """The inputs of one forward pass in training.

    Attributes:
        examples: Prompts with their candidate branches (next-token: the true title's branch alone).
        targets: Index of the true branch of each example.
        scale: Factor of the summed loss with which the mean over the micro-batches of a step is the mean over its cases
            (next-token: over its title tokens).
        seed: Seed of the dropout masks.
    """

    examples: list[Example]
    targets: list[int]
    scale: float
    seed: int


class MicroBatches(TorchDataset[MicroBatch]):
    """All micro-batches of a run in the order of training.

    Every optimizer step has the same number of micro-batches, so that they can be distributed over accumulation steps
    and processes in any way. The cases of a step are sorted by length, so that a pass has little padding. Steps of an
    epoch differ by one case at most.

    Args:
        cases: Training cases.
        builder: Builder of the prompts.
        config: Options.
        processes: Number of processes that share a step.

    Attributes:
        steps: Optimizer steps of the run.
        steps_per_epoch: Optimizer steps of one epoch.
        parts: Micro-batches of a step: a multiple of `processes`, and with dropout a multiple of 4 if the batch is
            large enough.

    Raises:
        LorarecError: If a step has fewer cases than there are processes.
    """

    def __init__(
        self, cases: TrainingCases, builder: PromptBuilder, config: TrainingConfig, processes: int = 1
    ) -> None:
        self.cases = cases
        self.builder = builder
        self.config = config
        self.steps_per_epoch = -(-len(cases) // config.batch_size)
        self.steps = config.epochs * self.steps_per_epoch
        self.examples_of_step = lru_cache(maxsize=2)(self._examples_of_step)
        tokens = sum(self._lengths())
        smallest = len(cases) // self.steps_per_epoch
        if smallest < processes:
            raise LorarecError(f"{processes} processes cannot share a step of {smallest} training cases: use fewer")
        # Without dropout, the division of a step changes the order of float additions only.
        self._unit = next(
            unit
            for shared in (SHARED if config.lora_dropout else (1,))
            if (unit := math.lcm(shared, processes)) <= smallest
        )
        self._most = smallest // self._unit * self._unit
        budget = (config.token_budget or TOKEN_BUDGET) * self._unit
        self.parts = min(-(-tokens // budget) * self._unit, self._most)

    def fit(self, limit: int) -> None:
        """Divide the steps into more parts, if need be, so that a part has at most `limit` tokens, padding included.

        This holds for the first step, unless a part is a single case; the steps after it have about as many tokens.
        """
        while self.parts < self._most and self.longest > limit:
            self.parts += self._unit

    @property
    def longest(self) -> int:
        """Number of tokens, padding included, of the longest micro-batch of the first step."""
        lengths = self._lengths()
        spans = [lengths[_span(len(lengths), part, self.parts)] for part in range(self.parts)]
        return max(len(span) * span[-1] for span in spans)

    def describe(self) -> str:
        """Return a line about the number and size of the steps and their micro-batches."""
        steps = _counted(self.steps, "step", "steps")
        cases = _counted(len(self.examples_of_step(0)), "case", "cases")
        passes = _counted(self.parts, "forward pass", "forward passes")
        return f"Training: {steps} of {cases}, each in {passes} of up to {self.longest:,} tokens"

    def _lengths(self) -> list[int]:
        """Return the lengths in tokens of the cases of the first step, in ascending order."""
        return [example.length for example, _ in self.examples_of_step(0)]

    def __len__(self) -> int:
        return self.steps * self.parts

    def __getitem__(self, index: int) -> MicroBatch:
        step, part = divmod(index, self.parts)
        examples = self.examples_of_step(step)
        chosen = examples[_span(len(examples), part, self.parts)]
        whole = len(examples)
        if self.config.loss == "next-token":
            whole = sum(len(example.branches[0]) for example, _ in examples)
        return {
            "examples": [example for example, _ in chosen],
            "targets": [target for _, target in chosen],
            "scale": self.parts / whole,
            "seed": int(np.random.SeedSequence([self.config.seed, DROPOUT, index]).generate_state(1)[0]),
        }

    def _examples_of_step(self, step: int) -> list[tuple[Example, int]]:
        """Return (example, target) of the cases of a step, shortest first."""
        epoch, place = divmod(step, self.steps_per_epoch)
        begin, end = (len(self.cases) * edge // self.steps_per_epoch for edge in (place, place + 1))
        examples = [self._example(epoch, index) for index in range(begin, end)]
        return sorted(examples, key=lambda pair: pair[0].length)

    def _example(self, epoch: int, index: int) -> tuple[Example, int]:
        case = self.cases.case(epoch, index)
        example, target = self.builder.example(case.history, case.candidates, hints=case.hints), case.target
        if self.config.loss == "next-token":
            example, target = Example(example.prompt, [example.branches[target]]), 0
        return example, target


def _span(cases: int, part: int, parts: int) -> slice:
    """Return which of the cases of a step are in one of its parts, which differ by one case at most."""
    return slice(cases * part // parts, cases * (part + 1) // parts)


def _counted(number: int, singular: str, plural: str) -> str:
    return f"{number} {singular if number == 1 else plural}"
