"""Rows that generate a list of titles instead of scoring candidates: the papers' protocol."""

from typing import Any

import numpy as np
import polars as pl

from lorarec.backbone import Backbone
from lorarec.evaluation.adapter_scorer import AdapterScorer
from lorarec.lora import Adapter
from lorarec.ranking import Ranker


class GenerationScorer(AdapterScorer):
    """Writes a list of titles greedily; a candidate stands where the list names it exactly.

    A title of the list that is no candidate loses its place, and a candidate that is not named has no place at all.

    Args:
        count: titles to write.
        constrained: only candidates not listed yet can be written.
        options: as `AdapterScorer` takes; the readout is always `likelihood`.

    Attributes:
        returns_ranks: True, since `score` returns ranks of the candidates, 1 first and infinite for none.
        about: what the row is, and what share of the places was lost in the last call.
    """

    returns_ranks = True

    def __init__(
        self,
        backbone: Backbone,
        titles: dict[str, str],
        adapter: Adapter | None = None,
        count: int = 5,
        constrained: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(backbone, titles, adapter, **options | {"readout": "likelihood"})
        self.count = count
        self.constrained = constrained
        self.lost = 0.0

    def _scores(self, ranker: Ranker, cases: pl.DataFrame) -> list[np.ndarray]:
        """Places of the candidates of every case."""
        places, lost = [], 0
        examples = ranker.examples(cases, self.titles, self.evidence)
        lists = ranker.generate(examples, self.count, self.constrained, self.progress)
        for example, listed in zip(examples, lists, strict=True):
            place = np.full(len(example.branches), np.inf)
            for number, index in enumerate(listed, start=1):
                if index is not None:
                    place[index] = number
            places.append(place)
            lost += listed.count(None)
        self.lost = lost / max(1, self.count * cases.height)
        return places

    def _describe(self, ranker: Ranker) -> str:
        kind = "constrained to the candidates" if self.constrained else "free"
        return f"greedy list of {self.count} titles, {kind}, exact match; {self.lost:.1%} of the places lost"
