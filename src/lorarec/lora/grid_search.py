"""Weights by validation NDCG over a grid on the simplex (MoLoRec, section 3.3)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lorarec.errors import LorarecError
from lorarec.lora.injection import MixedModel
from lorarec.lora.mixture_batches import score_at_weights
from lorarec.lora.simplex import simplex_grid, uniform
from lorarec.lora.trace import Trace
from lorarec.metrics import ndcg, target_ranks
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import score_batch

CUTOFFS = (1, 3, 10)


def grid_weights(
    mixed: MixedModel,
    size: int,
    validation: tuple[Sequence[Example], Sequence[int]],
    builder: PromptBuilder,
    token_budget: int,
) -> tuple[torch.Tensor, Trace]:
    """The best weights (size,) of the grid: by NDCG@10, then nearness to uniform.

    NDCG@10 tells points apart with far fewer cases than NDCG@1, which is right or wrong on each. All grid points are
    rows of the same batches; there is no backward pass.

    Args:
        validation: prompts and the index of the true candidate of each.
    """
    points = simplex_grid(size)
    figures = ndcg_at_weights(mixed, points, validation, builder, token_budget)
    from_uniform = (points - uniform(size)).norm(dim=1).tolist()
    best = max(range(len(points)), key=lambda i: (figures[i]["ndcg@10"], -round(from_uniform[i], 9)))
    steps = [{"weights": point, **figure} for point, figure in zip(points.tolist(), figures, strict=True)]
    return points[best], Trace(steps, "all grid points", {"chosen": best, "cases": len(validation[0])})


def ndcg_at_weights(
    mixed: MixedModel,
    points: torch.Tensor,
    validation: tuple[Sequence[Example], Sequence[int]],
    builder: PromptBuilder,
    token_budget: int,
) -> list[dict[str, float]]:
    """Mean NDCG@1, @3 and @10 under each of the weights (points, K).

    Raises:
        LorarecError: no cases, or not one target for each.
    """
    examples, targets = validation
    if len(examples) == 0:
        raise LorarecError("no validation cases: the dataset's split has none")
    if len(examples) != len(targets):
        raise LorarecError(f"{len(examples)} validation prompts but {len(targets)} targets")

    def read(model: Any, batch: list[Example]) -> list[np.ndarray]:
        return [scores.float().cpu().numpy() for scores in score_batch(model, batch, builder)]

    scores = score_at_weights(mixed, points, examples, read, lambda example: example.length, token_budget)
    ranks = [target_ranks(of_point, np.asarray(targets)) for of_point in scores]
    return [{f"ndcg@{k}": float(np.mean(ndcg(of_point, k))) for k in CUTOFFS} for of_point in ranks]
