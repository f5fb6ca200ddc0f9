"""All recommenders by the names that they have in recipes and tables."""

from typing import Any

from lorarec.experiments.fusion_row import SYSTEMS, FusionRow
from lorarec.experiments.index_row import IndexOrder
from lorarec.recommenders import Recommender

RECOMMENDERS: dict[str, type[Recommender[Any]]] = {**SYSTEMS, "fusion": FusionRow, "index": IndexOrder}
