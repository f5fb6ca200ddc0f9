"""Names that options of recommenders had in version 0.1.0, for its recipes and the records of its finished rows."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TypeVar

T = TypeVar("T")

_FORMER_NAMES = {
    "alpha": "lora_alpha",
    "batch": "batch_size",
    "codes": "num_codes",
    "depth": "num_layers",
    "digits": "num_digits",
    "drop": "drop_ratio",
    "dropout": "lora_dropout",
    "eval_every": "eval_steps",
    "experts": "num_experts",
    "fixed": "freeze_encoder",
    "hidden": "mask_ratio",
    "ids": "use_item_ids",
    "length": "max_tokens",
    "longest": "max_history",
    "lr": "learning_rate",
    "others": "max_field_tokens",
    "penalty": "weight_decay",
    "pretrain_lr": "pretrain_learning_rate",
    "rank": "r",
    "swapped": "swap_ratio",
    "targets": "target_modules",
    "tokens": "max_title_tokens",
    "views": "contrastive_weight",
    "warmup": "warmup_ratio",
    "width": "hidden_size",
    "words": "masked_weight",
}


def current_names(config_class: type, options: Mapping[str, T]) -> dict[str, T]:
    """Return options under their current names; names that are neither current nor former ones are unchanged."""
    current = {field.name for field in fields(config_class)}
    return {
        _FORMER_NAMES[name] if name not in current and _FORMER_NAMES.get(name) in current else name: value
        for name, value in options.items()
    }
