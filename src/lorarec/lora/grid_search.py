"""Grid search for the weights with the best validation NDCG (MoLoRec, arXiv 2502.08271, section 3.3)."""

import numpy as np
import torch

from lorarec.lora.injection import MixedModel
from lorarec.lora.mixing_prompts import MixingExamples, require_targets
from lorarec.lora.simplex import simplex_grid, uniform
from lorarec.lora.weight_search import EvaluatedMixture, Trace, candidate_scores_at_weights
from lorarec.metrics import ndcg, target_ranks

CUTOFFS = (1, 3, 10)


def grid_weights(
    mixed: MixedModel,
    size: int,
    labelled: MixingExamples,
    token_budget: int | None,
) -> tuple[torch.Tensor, Trace]:
    """Choose the point of the grid with the best NDCG@10; of equally good ones, the point nearest to equal weights.

    NDCG@10 distinguishes points with far fewer cases than NDCG@1, which is right or wrong on each. All points are
    evaluated as rows of the same batches; there is no backward pass.

    Args:
        mixed: The model with mixed layers.
        size: The number K of adapters.
        labelled: The prompts of validation cases with their target items.
        token_budget: The maximum number of tokens in one forward pass, padding included; None for the default of the
            device.

    Returns:
        The weights (K,), and the mixtures that were evaluated.

    Raises:
        LorarecError: There are no prompts, the numbers of prompts and targets differ, or a score is NaN or infinite.
    """
    points = simplex_grid(size)
    metrics = ndcg_at_weights(mixed, points, labelled, token_budget)
    from_uniform = (points - uniform(size)).norm(dim=1).tolist()
    # Means of the same values in another order differ by rounding.
    best = max(range(len(points)), key=lambda i: (round(metrics[i]["ndcg@10"], 9), -round(from_uniform[i], 9)))
    steps = [EvaluatedMixture(point, found) for point, found in zip(points.tolist(), metrics, strict=True)]
    return points[best], Trace(steps, "all grid points", {"chosen": best, "cases": len(labelled.prompts)})


def ndcg_at_weights(
    mixed: MixedModel,
    points: torch.Tensor,
    labelled: MixingExamples,
    token_budget: int | None = None,
) -> list[dict[str, float]]:
    """Return the mean NDCG@1, @3 and @10 under each of the weights (points, K); arguments as for `grid_weights`.

    Raises:
        LorarecError: There are no prompts, the numbers of prompts and targets differ, or a score is NaN or infinite.
    """
    targets = require_targets(labelled)
    scores = candidate_scores_at_weights(mixed, points, labelled, token_budget)
    ranks = [target_ranks(of_point, np.asarray(targets)) for of_point in scores]
    return [{f"ndcg@{k}": float(np.mean(ndcg(of_point, k))) for k in CUTOFFS} for of_point in ranks]
