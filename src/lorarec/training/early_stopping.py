"""The weights of the best epoch, and when to stop looking for a better one."""

import torch
from torch import nn


class EarlyStopping:
    """Keeps the weights of the epoch with the best validation figure, the earlier of two equal ones.

    Args:
        model: whose weights are kept.
        patience: epochs without a better figure after which to stop.

    Attributes:
        curve: the figure of every epoch.
    """

    def __init__(self, model: nn.Module, patience: int) -> None:
        self.model = model
        self.patience = patience
        self.curve: list[float] = []
        self._weights: dict[str, torch.Tensor] = {}
        self._epoch = 0

    def ends(self, figure: float) -> bool:
        """Take the figure of an epoch, higher is better; whether that was the last epoch worth doing."""
        if not self.curve or figure > self.curve[self._epoch]:
            self._epoch = len(self.curve)
            self._weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.curve.append(figure)
        return len(self.curve) - 1 - self._epoch >= self.patience

    def restore(self) -> None:
        """Give the model the weights of the best epoch; it keeps its own where there was none."""
        if self._weights:
            self.model.load_state_dict(self._weights)
