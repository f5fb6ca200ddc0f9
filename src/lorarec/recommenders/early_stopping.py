"""Early stopping that remembers the weights of the best epoch, and the refusal of a training that diverged."""

import torch
from torch import nn

from lorarec.errors import LorarecError

#: Number of training cases that are scored after each epoch for `refuse_divergence`.
CHECKED_CASES = 64


class EarlyStopping:
    """Remember the weights of the epoch with the best validation metric, the earlier of two equal ones.

    Args:
        model: Model whose weights are remembered.
        patience: Number of epochs without a better metric after which training should stop.

    Attributes:
        curve: Metric of every epoch so far.
        best_epoch: Index of the best epoch in `curve`.
    """

    def __init__(self, model: nn.Module, patience: int) -> None:
        self.model = model
        self.patience = patience
        self.curve: list[float] = []
        self._weights: dict[str, torch.Tensor] = {}
        self.best_epoch = 0

    def step(self, metric: float) -> bool:
        """Record the metric of an epoch, higher is better, and return whether training should stop."""
        if not self.curve or metric > self.curve[self.best_epoch]:
            self.best_epoch = len(self.curve)
            self._weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.curve.append(metric)
        return len(self.curve) - 1 - self.best_epoch >= self.patience

    def restore(self) -> None:
        """Load the weights of the best epoch into the model; do nothing before the first epoch."""
        if self._weights:
            self.model.load_state_dict(self._weights)


def refuse_divergence(model: nn.Module, title: str, scores: torch.Tensor) -> None:
    """Refuse a model whose training has diverged; call it after each epoch.

    Args:
        model: Model that is trained.
        title: Name of the model in the error message.
        scores: Scores that the model gives now to some cases. A single step can leave weights so large that every
            score overflows, before a further step makes the weights themselves NaN.

    Raises:
        LorarecError: A parameter or a score is not finite.
    """
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise LorarecError(f"{title}: the training diverged, its weights are not finite: lower the learning rate")
    if not scores.isfinite().all():
        raise LorarecError(f"{title}: the training diverged, its scores are not finite: lower the learning rate")
