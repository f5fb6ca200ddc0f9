"""Adapters and mixtures as requests and variants name them."""

from collections.abc import Mapping

from lorarec.lora import check_weights, shared_prompt_config
from lorarec.serving.engine import LoadedAdapter


def weights_by_name(adapter: str | Mapping[str, float]) -> Mapping[str, float]:
    """Return the weights of an adapter, given by its name, or of a mixture."""
    return {adapter: 1.0} if isinstance(adapter, str) else adapter


def check_mixture(weights: Mapping[LoadedAdapter, float]) -> None:
    """Refuse weights that do not sum to 1, and adapters that cannot share prompts.

    Raises:
        LorarecError: If they cannot be mixed.
    """
    if weights:
        check_weights(list(weights.values()), len(weights))
        shared_prompt_config({each.name: each.prompt for each in weights})
