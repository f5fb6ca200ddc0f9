"""The two choosers that look at prompts, on a model with mixed layers."""

from collections.abc import Sequence

import torch

from lorarec.errors import LorarecError
from lorarec.lora.entropy_search import descend, search_pair
from lorarec.lora.injection import MixedModel
from lorarec.lora.objectives import Entropy
from lorarec.lora.trace import Trace
from lorarec.prompts import Example


def choose_by_entropy(
    mixed: MixedModel, size: int, prompts: Sequence[Example], objective: Entropy, scope: str, token_budget: int = 8192
) -> tuple[torch.Tensor, Trace]:
    """Weights of the lowest entropy over unlabelled prompts.

    Args:
        size: number K of adapters.
        scope: `model` or `layer`.

    Returns:
        (K,), or (layers, K) in the order of `mixed.layers`.

    Raises:
        LorarecError: there are no prompts.
    """
    if not prompts:
        raise LorarecError("entropy needs unlabelled prompts: give some, 50 to 100 are enough")
    if scope == "model" and size == 2:
        return search_pair(mixed, prompts, objective, token_budget)
    return descend(mixed, size, prompts, objective, scope == "layer", token_budget)
