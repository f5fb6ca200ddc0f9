"""Training of a router over finished adapters on validation cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lorarec.errors import LorarecError
from lorarec.io import track
from lorarec.lora import score_at_weights, simplex_grid
from lorarec.personal.config import UserRouterConfig
from lorarec.personal.model import PersonalLora
from lorarec.personal.router import Router
from lorarec.personal.scoring import user_scores
from lorarec.personal.tuning import MAX_NORM, add_gradient
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import score_batch, training_mode
from lorarec.training import listwise

#: The constant mixtures tried keep this distance from the simplex's corners, where a softmax has no gradient.
LEAST_WEIGHT = 0.02


@dataclass(frozen=True)
class RouterCases:
    """Validation cases.

    Attributes:
        examples: prompts with their candidates as branches.
        targets: the place of the true candidate of each.
        representation: (n, d) what the router reads of their users.
    """

    examples: Sequence[Example]
    targets: Sequence[int]
    representation: torch.Tensor

    def __len__(self) -> int:
        return len(self.examples)

    def loss(self, scores: Sequence[torch.Tensor], rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """The sum of the listwise losses of some cases, given the scores of their candidates."""
        return listwise(scores, [self.targets[row] for row in rows])


def tune_router(
    personal: PersonalLora,
    fitted: RouterCases,
    held_out: RouterCases,
    builder: PromptBuilder,
    options: UserRouterConfig,
    progress: bool = False,
) -> dict[str, Any]:
    """Train a router over finished adapters by the cross-entropy of the true candidate over its candidate set.

    It starts at the constant mixture with the lowest loss on the cases it is trained on, and is left as it was after
    the epoch with the lowest loss on the held-out cases; `kept_epoch` 0 is the constant mixture itself.

    Args:
        fitted: trained on.
        held_out: these choose the epoch.
        builder: of the prompts.

    Returns:
        `constant`, its weights (K,); `grid`, the loss of every constant mixture tried; `losses` by epoch, in nats;
        `kept_epoch`; and `cases`, how many were trained on and held out.

    Raises:
        LorarecError: the loss is not finite.
    """
    router = personal.router
    constant, grid = _best_constant(personal, fitted, builder, options.token_budget)
    with torch.no_grad():
        router.out_weight.zero_()
        router.out_bias.copy_(constant.log().to(router.out_bias))
    optimizer = torch.optim.AdamW(router.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    curve: list[dict[str, Any]] = [{"epoch": 0, "held_out": _mean_loss(personal, held_out, builder, options)}]
    best, kept = _copied(router), 0
    for epoch in range(1, options.epochs + 1):
        order = np.random.default_rng([options.seed, epoch]).permutation(len(fitted))
        batches = [order[start : start + options.batch_size] for start in range(0, len(order), options.batch_size)]
        trained = 0.0
        with training_mode(personal):
            for batch in track(batches, f"Choosing, epoch {epoch}", progress):
                told = (fitted.examples, fitted.representation, batch, builder, options.token_budget)
                trained += add_gradient(personal, *told, fitted.loss) * len(batch) / len(order)
                torch.nn.utils.clip_grad_norm_(router.parameters(), MAX_NORM)
                optimizer.step()
                optimizer.zero_grad()
        found = _mean_loss(personal, held_out, builder, options)
        if not np.isfinite(found):
            raise LorarecError(f"the loss is {found} after epoch {epoch}: lower lr")
        curve.append({"epoch": epoch, "trained": trained, "held_out": found})
        if found < curve[kept]["held_out"]:
            best, kept = _copied(router), epoch
        elif epoch - kept >= options.patience:
            break
    router.load_state_dict(best)
    counts = {"trained": len(fitted), "held_out": len(held_out)}
    return {"constant": constant.tolist(), "grid": grid, "losses": curve, "kept_epoch": kept, "cases": counts}


def _copied(router: Router) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in router.state_dict().items()}


def _best_constant(
    personal: PersonalLora, cases: RouterCases, builder: PromptBuilder, token_budget: int
) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """The weights (K,) with the lowest mean loss, and the losses of all that were tried."""
    points = simplex_grid(personal.router.size).clamp(min=LEAST_WEIGHT)
    points = points / points.sum(1, keepdim=True)
    scores = score_at_weights(
        personal.mixed,
        points,
        cases.examples,
        lambda model, batch: score_batch(model, batch, builder),
        lambda example: example.length,
        token_budget,
    )
    losses = [float(cases.loss(of_point, range(len(cases)))) / len(cases) for of_point in scores]
    tried = [{"weights": point, "loss": loss} for point, loss in zip(points.tolist(), losses, strict=True)]
    return points[int(np.argmin(losses))], tried


@torch.no_grad()
def _mean_loss(personal: PersonalLora, cases: RouterCases, builder: PromptBuilder, options: UserRouterConfig) -> float:
    """In nats, every case under the mixture that the router chooses for its user."""
    weights = lambda rows: personal(cases.representation[rows])  # noqa: E731
    scores = user_scores(personal, cases.examples, weights, builder, options.token_budget)
    return float(cases.loss([torch.from_numpy(each) for each in scores], range(len(cases)))) / len(cases)
