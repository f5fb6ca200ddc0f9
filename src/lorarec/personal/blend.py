"""The blend of a personal LoRA and its click-through model: the weighted mean of their log-odds."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from lorarec.lora import simplex_grid
from lorarec.metrics import EPSILON, log_loss

#: Number of validation events that choose the weights, and number of steps between weights 0 and 1.
EVENTS, STEPS = 2000, 20


@dataclass(frozen=True)
class Blend:
    """The weights with the lowest log loss on validation events.

    Attributes:
        weights: Weights of the click-through model and of the personal LoRA, which sum to 1.
        losses: `weight` and mean log `loss`, in nats, of every weight of the personal LoRA that was tried.
    """

    weights: tuple[float, float]
    losses: list[dict[str, float]]


def choose_blend(ctr_model: np.ndarray, personal: np.ndarray, labels: np.ndarray) -> Blend:
    """Return the best weights of two arrays of probabilities; one weight may be zero.

    Args:
        ctr_model: Probabilities of the click-through model, (events,).
        personal: Probabilities of the personal LoRA, (events,).
        labels: 1 for a click, (events,); neither model was trained on these events.
    """
    losses = [
        {"weight": weight, "loss": float(log_loss(blended(ctr_model, personal, (other, weight)), labels).mean())}
        for other, weight in simplex_grid(2, STEPS).tolist()
    ]
    best = min(losses, key=lambda tried: tried["loss"])["weight"]
    return Blend((1 - best, best), losses)


def blended(ctr_model: np.ndarray, personal: np.ndarray, weights: tuple[float, float]) -> np.ndarray:
    """Return probabilities (events,) whose log-odds are the weighted mean of the log-odds of both."""
    clipped = np.clip([ctr_model, personal], EPSILON, 1 - EPSILON)
    return np.asarray(expit(np.tensordot(weights, logit(clipped), 1)))
