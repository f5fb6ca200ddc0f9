"""Recommendation with language models and mixed LoRA adapters.

The names below are the whole face of the library. They are loaded on first use, so that `import lorarec` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from lorarec.errors import LorarecError

if TYPE_CHECKING:
    from lorarec.backbone import Backbone
    from lorarec.data import Dataset
    from lorarec.evaluation import evaluate
    from lorarec.mixing import mix
    from lorarec.personal import personalize
    from lorarec.ranking import Ranker, explain, recommend
    from lorarec.retrieval import Index
    from lorarec.training import train

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "Dataset",
    "Index",
    "LorarecError",
    "Ranker",
    "__version__",
    "evaluate",
    "explain",
    "mix",
    "personalize",
    "recommend",
    "train",
]

_HOMES = {
    "Backbone": "lorarec.backbone",
    "Dataset": "lorarec.data",
    "Index": "lorarec.retrieval",
    "Ranker": "lorarec.ranking",
    "evaluate": "lorarec.evaluation",
    "explain": "lorarec.ranking",
    "mix": "lorarec.mixing",
    "personalize": "lorarec.personal",
    "recommend": "lorarec.ranking",
    "train": "lorarec.training",
}

# Hidden from type checkers: to them a module with `__getattr__` has every name there is.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = getattr(import_module(_HOMES[name]), name)
        return globals()[name]
