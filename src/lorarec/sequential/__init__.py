"""Models that read a history of items and name the next one; one trainer for all."""

from lorarec.sequential.fit import (
    Loss,
    NextItemOptions,
    beside_drawn,
    by_length,
    fit_next_item,
    named_beside,
    new_next_item,
    next_items,
    train_next_item,
)
from lorarec.sequential.model import PADDING, ItemIds, Items, NextItem
from lorarec.sequential.registry import SEQUENCES

__all__ = [
    "PADDING",
    "SEQUENCES",
    "ItemIds",
    "Items",
    "Loss",
    "NextItem",
    "NextItemOptions",
    "beside_drawn",
    "by_length",
    "fit_next_item",
    "named_beside",
    "new_next_item",
    "next_items",
    "train_next_item",
]
