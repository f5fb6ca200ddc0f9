"""Training of LoRA adapters: cases and negatives, losses, the trainer, checkpoints."""

from typing import TYPE_CHECKING

from lorarec.lazy import lazy_attributes

if TYPE_CHECKING:
    from lorarec.training.options import TrainOptions, read_recipe
    from lorarec.training.run import train

__all__ = ["TrainOptions", "read_recipe", "train"]

_HOMES = {
    "TrainOptions": "lorarec.training.options",
    "read_recipe": "lorarec.training.options",
    "train": "lorarec.training.run",
}

if not TYPE_CHECKING:
    __getattr__ = lazy_attributes(__name__, _HOMES)
