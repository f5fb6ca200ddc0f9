"""Rules of mixing that prune the adapters first: magnitude pruning, TIES and DARE, by PEFT's functions."""

import warnings

import torch
from peft.utils.merge_utils import dare_linear, dare_ties, magnitude_prune, ties

from lorarec.lora.bank import AdapterBank, StackedLayer, low_rank_factors
from lorarec.lora.combine import PruningRule
from lorarec.lora.peft_folder import Adapter

RULES = {"magnitude_prune": magnitude_prune, "ties": ties, "dare_linear": dare_linear, "dare_ties": dare_ties}


def prune_and_merge(
    bank: AdapterBank, weights: torch.Tensor, rule: PruningRule, density: float, rank: int | None = None, seed: int = 0
) -> Adapter:
    """Prune the changes that adapters make to each layer, sum them under weights, and truncate the sum to a LoRA.

    The result is that of PEFT's `add_weighted_adapter` with `combination_type=f"{rule}_svd"`: the rule is applied to
    the products s_k B_k A_k, (out, in), of the adapters that adapt the layer. The sum has no low rank, so it is
    replaced by the nearest matrix of the given rank (Frobenius norm), at O(out in min(out, in)) operations per layer.

    - `magnitude_prune` keeps the largest values of each adapter.
    - `ties` keeps them too, then sums at each place only the values of the majority's sign, divided by their number
      (Yadav et al., NeurIPS 2023).
    - `dare_linear` keeps random values and divides them by the density (Yu et al., ICML 2024).
    - `dare_ties` keeps random values as well, and sums them as `ties` does.

    Args:
        bank: The adapters.
        weights: The weights (K,), of any sign and sum.
        rule: The rule.
        density: The share of values that is kept, in (0, 1].
        rank: The rank of the result; the largest rank of the layer's adapters if None.
        seed: Seed of the random values that `dare_linear` and `dare_ties` keep.

    Raises:
        LorarecError: `rank` is below 1.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The density")  # PEFT warns of a density of 1, which keeps all values
        torch.manual_seed(seed)
        tensors = {
            name: _nearest(
                _merged(layer, weights, rule, density), max(layer.ranks) if rank is None else rank, layer.a.dtype
            )
            for name, layer in bank.layers.items()
        }
    return Adapter(tensors, dict.fromkeys(tensors, 1.0), bank.config)


def _merged(layer: StackedLayer, weights: torch.Tensor, rule: PruningRule, density: float) -> torch.Tensor:
    present = [k for k, rank in enumerate(layer.ranks) if rank]
    deltas = [layer.scale[k] * layer.b[k] @ layer.a[k] for k in present]
    return RULES[rule](deltas, weights[present].to(layer.a), density)


def _nearest(delta: torch.Tensor, rank: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    u, s, v = torch.linalg.svd(delta.double(), full_matrices=False)
    return low_rank_factors(u, s, v, rank, dtype)
