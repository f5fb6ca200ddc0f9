"""Tables and figures from recipes: rankings, clicks, and the weights that entropy chooses."""

from lorarec.experiments.kinds import KINDS, Filled, fill
from lorarec.experiments.recipe import Recipe, Row, read_experiment
from lorarec.experiments.run import run_experiment
from lorarec.experiments.workers import Processes, Workers

__all__ = [
    "KINDS",
    "Filled",
    "Processes",
    "Recipe",
    "Row",
    "Workers",
    "fill",
    "read_experiment",
    "run_experiment",
]
