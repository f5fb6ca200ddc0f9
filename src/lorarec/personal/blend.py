"""A personal LoRA and its recommender as one: the weighted mean of their log-odds."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from lorarec.lora import simplex_grid
from lorarec.metrics import EPSILON, log_loss

#: Validation events that choose the weights, and into how many steps the line between the two is divided.
EVENTS, STEPS = 2000, 20


@dataclass(frozen=True)
class Blend:
    """The weights with the lowest log loss on validation events.

    Attributes:
        weights: of the recommender and of the personal LoRA; they sum to 1.
        losses: for every weight of the personal LoRA that was tried, `weight` and mean log `loss` in nats.
    """

    weights: tuple[float, float]
    losses: list[dict[str, float]]


def choose_blend(recommender: np.ndarray, personal: np.ndarray, labels: np.ndarray) -> Blend:
    """Weights for two columns of probabilities (events,), which may be a corner: one of the two alone.

    Args:
        labels: (events,) 1 for a click; of events that neither was trained on.
    """
    losses = [
        {"weight": weight, "loss": float(log_loss(blended(recommender, personal, (other, weight)), labels).mean())}
        for other, weight in simplex_grid(2, STEPS).tolist()
    ]
    best = min(losses, key=lambda tried: tried["loss"])["weight"]
    return Blend((1 - best, best), losses)


def blended(recommender: np.ndarray, personal: np.ndarray, weights: tuple[float, float]) -> np.ndarray:
    """(events,) probabilities whose log-odds are the weighted mean of the log-odds of both."""
    clipped = np.clip([recommender, personal], EPSILON, 1 - EPSILON)
    return np.asarray(expit(np.tensordot(weights, logit(clipped), 1)))
