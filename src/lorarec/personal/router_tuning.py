"""Training of a router over finished adapters on validation cases."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lorarec.errors import LorarecError
from lorarec.io import JsonObject, track
from lorarec.lora import score_at_weights, simplex_grid
from lorarec.personal.config import UserRouterConfig
from lorarec.personal.model import PersonalLora
from lorarec.personal.scoring import user_scores
from lorarec.personal.tuning import MAX_NORM, add_gradient
from lorarec.prompts import Example, PromptBuilder
from lorarec.recommenders import EarlyStopping
from lorarec.scoring import NOT_FINITE, score_batch, training_mode
from lorarec.training import TrackedRun, listwise

#: Smallest weight of a constant mixture that is tried; a softmax has no gradient at the corners of the simplex.
LEAST_WEIGHT = 0.02


@dataclass(frozen=True)
class RouterCases:
    """Validation cases of a split.

    Attributes:
        examples: Prompts with their candidates as branches.
        targets: Index of the target item of each case.
        representation: Representation of each case's user, (cases, d), which the router reads.
    """

    examples: Sequence[Example]
    targets: Sequence[int]
    representation: torch.Tensor

    def __len__(self) -> int:
        return len(self.examples)

    def loss(self, scores: Sequence[torch.Tensor], rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Return the sum of the listwise losses of some cases, given the scores of their candidates."""
        return listwise(scores, [self.targets[row] for row in rows])


def tune_router(
    personal: PersonalLora,
    fitted: RouterCases,
    held_out: RouterCases,
    builder: PromptBuilder,
    config: UserRouterConfig,
    progress: bool = False,
    run: TrackedRun | None = None,
) -> JsonObject:
    """Train a router over finished adapters by the cross-entropy of the target item over its candidate set.

    The router is initialized to the constant mixture with the lowest loss on the cases that it is trained on. At the
    end it has the weights of the epoch with the lowest loss on the held-out cases; epoch 0 is the constant mixture.

    Args:
        personal: Personal LoRA whose router is trained.
        fitted: Cases that the router is trained on.
        held_out: Cases that decide on early stopping.
        builder: Builder of the prompts.
        config: Options.
        progress: Show progress bars on standard error.
        run: Run of trackers, which gets the losses of each epoch.

    Returns:
        `constant`, the weights (K,) of the constant mixture; `grid`, the loss of every constant mixture that was tried;
        `losses` by epoch, in nats; `kept_epoch`, the epoch whose weights were restored; and `cases`, the numbers of
        cases that were trained on and held out.

    Raises:
        LorarecError: If a loss is not finite.
    """
    router = personal.router
    constant, grid = _best_constant(personal, fitted, builder, config.token_budget)
    with torch.no_grad():
        router.out_weight.zero_()
        router.out_bias.copy_(constant.log().to(router.out_bias))
    optimizer = torch.optim.AdamW(router.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    losses: list[JsonObject] = [{"epoch": 0, "held_out": _mean_loss(personal, held_out, builder, config)}]
    if run is not None:
        run.log({"eval_loss": losses[0]["held_out"]}, 0)
    stopping = EarlyStopping(router, config.patience)
    stopping.step(-losses[0]["held_out"])
    for epoch in range(1, config.epochs + 1):
        order = np.random.default_rng([config.seed, epoch]).permutation(len(fitted))
        batches = [order[start : start + config.batch_size] for start in range(0, len(order), config.batch_size)]
        trained = 0.0
        with training_mode(personal):
            for batch in track(batches, f"Training the router, epoch {epoch}", progress):
                loss = add_gradient(
                    personal, fitted.examples, fitted.representation, batch, builder, config.token_budget, fitted.loss
                )
                trained += loss * len(batch) / len(order)
                torch.nn.utils.clip_grad_norm_(router.parameters(), MAX_NORM)
                optimizer.step()
                optimizer.zero_grad()
        held_out_loss = _mean_loss(personal, held_out, builder, config)
        if not np.isfinite(held_out_loss):
            raise LorarecError(f"the loss is {held_out_loss} after epoch {epoch}: lower the learning rate")
        losses.append({"epoch": epoch, "trained": trained, "held_out": held_out_loss})
        if run is not None:
            run.log({"loss": trained, "eval_loss": held_out_loss}, epoch)
        if stopping.step(-held_out_loss):
            break
    stopping.restore()
    return {
        "constant": constant.tolist(),
        "grid": grid,
        "losses": losses,
        "kept_epoch": stopping.best_epoch,
        "cases": {"trained": len(fitted), "held_out": len(held_out)},
    }


def _best_constant(
    personal: PersonalLora, cases: RouterCases, builder: PromptBuilder, token_budget: int | None
) -> tuple[torch.Tensor, list[JsonObject]]:
    """Return the weights (K,) with the lowest mean loss, and the losses of all weights that were tried."""
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
    if not np.isfinite(losses).all():
        raise LorarecError(f"the loss of a constant mixture is NaN or infinite: {NOT_FINITE}")
    tried = [{"weights": point, "loss": loss} for point, loss in zip(points.tolist(), losses, strict=True)]
    return points[int(np.argmin(losses))], tried


@torch.no_grad()
def _mean_loss(personal: PersonalLora, cases: RouterCases, builder: PromptBuilder, config: UserRouterConfig) -> float:
    """Return the mean loss in nats; the mixture of each case is the one that the router chooses for its user."""
    weights = lambda rows: personal(cases.representation[rows])  # noqa: E731
    scores = user_scores(personal, cases.examples, weights, builder, config.token_budget)
    return float(cases.loss([torch.from_numpy(each) for each in scores], range(len(cases)))) / len(cases)
