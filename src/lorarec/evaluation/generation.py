"""Rows that generate a list of titles instead of scoring candidates: the papers' protocol."""

from typing import Any

import numpy as np
import polars as pl
from rich.progress import track

from lorarec.adapters import Adapter
from lorarec.backbone.load import Backbone
from lorarec.data.columns import CANDIDATES, HISTORY
from lorarec.ranking import Ranker, generate_titles


class GenerationRow:
    """Writes a list of titles greedily; a candidate stands where the list names it exactly.

    A title of the list that is no candidate loses its place, and a candidate that is not named has no place at all.

    Args:
        titles: item id -> title.
        adapter: an adapter of this backbone, or None for the backbone alone.
        count: titles to write.
        constrained: only candidates not listed yet can be written.
        progress: show a bar while writing.
        options: further arguments of `Ranker`.

    Attributes:
        gives_places: tells `evaluate` that the row gives places, 1 first, infinite for none.
        about: what the row is, and what share of the places was lost in the last call.
        dropped: history items that did not fit into the prompts, over all calls.
    """

    gives_places = True

    def __init__(
        self,
        backbone: Backbone,
        titles: dict[str, str],
        adapter: Adapter | None = None,
        count: int = 5,
        constrained: bool = False,
        progress: bool = False,
        **options: Any,
    ) -> None:
        self.backbone = backbone
        self.titles = titles
        self.adapter = adapter
        self.count = count
        self.constrained = constrained
        self.progress = progress
        self.options = options | {"readout": "likelihood"}
        self.about = ""
        self.dropped = 0

    def __call__(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Places of the candidates of every case."""
        places, lost = [], 0
        with Ranker(self.backbone, self.adapter, **self.options) as ranker:
            rows = zip(cases[HISTORY].to_list(), cases[CANDIDATES].to_list(), strict=True)
            for history, candidates in track(rows, "Writing", cases.height, disable=not self.progress, transient=True):
                shown = [self.titles[item] for item in history[-ranker.max_history :]]
                titles = [self.titles[item] for item in candidates]
                listed = generate_titles(
                    self.backbone, ranker.builder, shown, titles, self.count, constrained=self.constrained
                )
                place = np.full(len(candidates), np.inf)
                for number, index in enumerate(listed, start=1):
                    if index is not None:
                        place[index] = number
                places.append(place)
                lost += listed.count(None)
            self.dropped += ranker.builder.dropped
        kind = "constrained to the candidates" if self.constrained else "free"
        share = lost / max(1, self.count * cases.height)
        self.about = f"greedy list of {self.count} titles, {kind}, exact match; {share:.1%} of the places lost"
        return places
