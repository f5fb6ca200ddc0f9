"""Where entropy puts the weight, and how many unlabelled prompts it takes (MoLoRec, Figures 4 and 5), from a recipe."""

from lorarec.experiments.weight_figures.recipe import WeightsRecipe, read_weights
from lorarec.experiments.weight_figures.run import run_weights

__all__ = ["WeightsRecipe", "read_weights", "run_weights"]
