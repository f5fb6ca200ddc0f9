"""Validation on cases of all datasets, distributed over processes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate.utils import gather_object

from lorarec.data import Dataset, Split
from lorarec.metrics import ndcg, target_ranks
from lorarec.prompts import Example, PromptBuilder, case_examples, true_places
from lorarec.recommenders import make_evidence
from lorarec.scoring import scores_to_numpy, token_batches
from lorarec.training.config import TrainingConfig

CUTOFFS = (1, 3, 5, 10)


class Validation:
    """At most `config.eval_users` validation cases, equally many of each dataset, drawn by the seed.

    Args:
        datasets: Datasets with their splits.
        builder: Builder of the prompts.
        config: Options.
        progress: Show a progress bar while a model for evidence is fitted.

    Attributes:
        examples: Prompts with their stored candidates.
        targets: Index of the target item of each case, (cases,).
        protocols: Protocol of each split with its number of negatives, without repetitions.
    """

    def __init__(
        self,
        datasets: Sequence[tuple[Dataset, Split]],
        builder: PromptBuilder,
        config: TrainingConfig,
        progress: bool = False,
    ) -> None:
        cases: list[tuple[Example, int]] = []
        for number, (dataset, split) in enumerate(datasets):
            share = (config.eval_users * (number + 1)) // len(datasets) - config.eval_users * number // len(datasets)
            rows = split.valid.sample(min(share, len(split.valid)), seed=config.seed)
            evidence = None if rows.is_empty() else make_evidence(config, dataset, split, progress)
            examples = case_examples(rows, dataset.titles, builder, config.max_history, evidence)
            cases += zip(examples, true_places(rows), strict=True)
        self.examples = [example for example, _ in cases]
        self.targets = np.array([target for _, target in cases], dtype=np.int64)
        options = [split.info["options"] for _, split in datasets]
        protocols = [{"protocol": each.get("protocol"), "negatives": each.get("negatives")} for each in options]
        self.protocols = [each for place, each in enumerate(protocols) if each not in protocols[:place]]

    def __len__(self) -> int:
        return len(self.examples)

    def metrics(
        self,
        forward: Callable[[Sequence[Example]], list[torch.Tensor]],
        token_budget: int,
        process: int = 0,
        processes: int = 1,
    ) -> dict[str, float]:
        """Return the mean NDCG at the cut-offs, the same on every process.

        Args:
            forward: Function that returns the scores of examples. It is called equally often on each process, since a
                sharded model exchanges weights at every call.
            token_budget: Number of tokens of a forward pass, padding included.
            process: Index of this process.
            processes: Number of processes.
        """
        batches = self.batches(token_budget)
        scores: dict[int, np.ndarray] = {}
        for turn in range(-(-len(batches) // processes)):
            batch = batches[min(turn * processes + process, len(batches) - 1)]
            with torch.no_grad():
                outputs = forward([self.examples[index] for index in batch])
            scores.update(zip(batch, scores_to_numpy(outputs), strict=True))
        gathered = dict(gather_object(list(scores.items()))) if processes > 1 else scores
        ranks = target_ranks([gathered[index] for index in range(len(self))], self.targets)
        return {f"ndcg@{k}": float(ndcg(ranks, k).mean()) for k in CUTOFFS}

    def batches(self, token_budget: int) -> list[list[int]]:
        """Return the indices of the cases of each pass: as many as the token budget allows, at least one."""
        return token_batches([example.length for example in self.examples], token_budget)
