"""Tables and figures from recipes: rankings, clicks, and the weights that entropy chooses."""

from typing import TYPE_CHECKING

from lorarec.lazy import lazy_attributes

if TYPE_CHECKING:
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

_HOMES = {
    "KINDS": "lorarec.experiments.kinds",
    "Filled": "lorarec.experiments.kinds",
    "fill": "lorarec.experiments.kinds",
    "Recipe": "lorarec.experiments.recipe",
    "Row": "lorarec.experiments.recipe",
    "read_experiment": "lorarec.experiments.recipe",
    "run_experiment": "lorarec.experiments.run",
    "Processes": "lorarec.experiments.workers",
    "Workers": "lorarec.experiments.workers",
}

if not TYPE_CHECKING:
    __getattr__ = lazy_attributes(__name__, _HOMES)
