"""A row of a table from a backbone and one adapter."""

from typing import Any

import numpy as np
import polars as pl

from lorarec.backbone import Backbone
from lorarec.data import Cooccurrence
from lorarec.lora import Adapter
from lorarec.ranking import Ranker


class AdapterScorer:
    """A scorer that folds an adapter into the backbone for the time of scoring, so that many rows share one backbone.

    Args:
        titles: item id -> title.
        adapter: an adapter of this backbone, or None for the backbone alone.
        evidence: of the training histories, for adapters that read it.
        progress: show a bar while scoring.
        options: further arguments of `Ranker`.

    Attributes:
        about: what the row is, and how many history items did not fit into the prompts of the last call.
        dropped: history items that did not fit, over all calls.
    """

    def __init__(
        self,
        backbone: Backbone,
        titles: dict[str, str],
        adapter: Adapter | None = None,
        evidence: Cooccurrence | None = None,
        progress: bool = False,
        **options: Any,
    ) -> None:
        self.backbone = backbone
        self.titles = titles
        self.adapter = adapter
        self.evidence = evidence
        self.progress = progress
        self.options = options
        self.about = ""
        self.dropped = 0

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case."""
        with Ranker(self.backbone, self.adapter, **self.options) as ranker:
            scores = self._scores(ranker, cases)
            self.dropped += ranker.builder.dropped
            self.about = self._describe(ranker)
        return scores

    def _scores(self, ranker: Ranker, cases: pl.DataFrame) -> list[np.ndarray]:
        return ranker.score_cases(cases, self.titles, self.evidence, self.progress)

    def _describe(self, ranker: Ranker) -> str:
        backbone = f"backbone {self.backbone.id} ({self.backbone.fingerprint})"
        which = "no adapter" if self.adapter is None else f"adapter {source(self.adapter)}"
        through = " through vLLM" if ranker.engine else ""
        dropped = f"; {ranker.builder.dropped:,} history items dropped, oldest first, to fit prompts"
        told = ", told how often others chose the candidates with the history" if ranker.evidence else ""
        return (
            f"{backbone}, {which}, readout {ranker.readout}{through}{told}{dropped if ranker.builder.dropped else ''}"
        )


def source(adapter: Adapter) -> str:
    """Where an adapter was read from, for messages and reports."""
    return "in memory" if adapter.folder is None else f"{adapter.folder} ({adapter.fingerprint})"
