"""Training of LoRA adapters: cases and negatives, losses, the trainer, checkpoints."""

from lorarec.training.options import TrainOptions, read_recipe
from lorarec.training.run import train

__all__ = ["TrainOptions", "read_recipe", "train"]
