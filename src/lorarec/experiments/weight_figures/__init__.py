"""MoLoRec's Figures 4 and 5: the weights that entropy chooses, and the number of unlabelled prompts that it needs."""

from lorarec.experiments.weight_figures.recipe import WeightsRecipe, read_weights
from lorarec.experiments.weight_figures.run import run_weights

__all__ = ["WeightsRecipe", "read_weights", "run_weights"]
