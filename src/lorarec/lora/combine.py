"""The names of the rules by which adapters are combined (see `lorarec.lora.bank` and `lorarec.lora.pruning`)."""

from typing import Literal, get_args

Combine = Literal["factors", "deltas"]
COMBINE_RULES: tuple[Combine, ...] = get_args(Combine)
FACTORS, DELTAS = COMBINE_RULES

#: Rules that leave out a part of each adapter's values before the sum. They are defined for constant weights only.
PruningRule = Literal["magnitude_prune", "ties", "dare_linear", "dare_ties"]
PRUNING_RULES: tuple[PruningRule, ...] = get_args(PruningRule)

#: The rules of `mix`.
MixingRule = Literal[Combine, PruningRule]
