"""Recommendation with language models and mixed LoRA adapters.

The names below are the whole face of the library. They are loaded on first use, so that `import lorarec` is fast.
"""

from typing import TYPE_CHECKING

from lorarec.errors import LorarecError
from lorarec.lazy import lazy_attributes

if TYPE_CHECKING:
    from lorarec.backbone import Backbone
    from lorarec.data import Dataset
    from lorarec.evaluation import evaluate
    from lorarec.mixing import mix
    from lorarec.personal import personalize
    from lorarec.ranking import Ranker, explain, recommend
    from lorarec.retrieval import Index
    from lorarec.training import train

__version__ = "0.2.0"

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

if not TYPE_CHECKING:
    __getattr__ = lazy_attributes(__name__, _HOMES)
