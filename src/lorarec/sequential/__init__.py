"""Models that read a history of items and name the next one; one trainer for all."""

from lorarec.sequential.fit import NextItemOptions, fit_next_item, new_next_item, train_next_item
from lorarec.sequential.model import NextItem
from lorarec.sequential.registry import SEQUENCES

__all__ = ["SEQUENCES", "NextItem", "NextItemOptions", "fit_next_item", "new_next_item", "train_next_item"]
