"""A table from a recipe: every row fitted with several seeds and ranked on the same candidate sets."""

from lorarec.experiments.recipe import Recipe, Row, read_experiment
from lorarec.experiments.run import run_experiment
from lorarec.experiments.workers import Processes, Workers

__all__ = ["Processes", "Recipe", "Row", "Workers", "read_experiment", "run_experiment"]
