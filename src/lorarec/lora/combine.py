"""The names of the two rules by which adapters are combined (see `lorarec.lora.bank`)."""

from typing import Literal, get_args

Combine = Literal["factors", "deltas"]
COMBINE_RULES: tuple[Combine, ...] = get_args(Combine)
FACTORS, DELTAS = COMBINE_RULES
