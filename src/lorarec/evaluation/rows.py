"""Rows of a table from a backbone and its adapters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lorarec.adapters import Adapter, read_adapter
from lorarec.adapters.origin import trained_on
from lorarec.adapters.prompting import prompt_settings
from lorarec.backbone.load import Backbone
from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.evaluation.generation import GenerationRow
from lorarec.ranking import Ranker

ZERO_SHOT = "zero-shot"
FREE, CONSTRAINED = GENERATION = ("free", "constrained")


class RankerRow:
    """A scorer that folds an adapter into the backbone for the time of scoring, so that many rows share one backbone.

    Args:
        titles: item id -> title.
        adapter: an adapter of this backbone, or None for the backbone alone.
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
        progress: bool = False,
        **options: Any,
    ) -> None:
        self.backbone = backbone
        self.titles = titles
        self.adapter = adapter
        self.progress = progress
        self.options = options
        self.about = ""
        self.dropped = 0

    def __call__(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case."""
        with Ranker(self.backbone, self.adapter, **self.options) as ranker:
            scores = ranker.score_cases(cases, self.titles, self.progress)
            self.dropped += ranker.builder.dropped
            self.about = self._describe(ranker)
        return scores

    def _describe(self, ranker: Ranker) -> str:
        backbone = f"backbone {self.backbone.id} ({self.backbone.fingerprint})"
        which = "no adapter" if self.adapter is None else f"adapter {_source(self.adapter)}"
        dropped = f"; {ranker.builder.dropped:,} history items dropped, oldest first, to fit prompts"
        return f"{backbone}, {which}, readout {ranker.readout}{dropped if ranker.builder.dropped else ''}"


def ranker_rows(
    backbone: Backbone,
    dataset: Dataset,
    adapters: Mapping[str, str | Path | Adapter],
    readout: str | None = None,
    progress: bool = False,
    generation: str | None = None,
) -> dict[str, RankerRow | GenerationRow]:
    """The backbone alone, called `zero-shot`, and a row per adapter.

    Args:
        dataset: where titles come from.
        adapters: row name -> PEFT folder or adapter.
        readout: of all rows; what each adapter was trained with when None. The backbone alone is prompted as the
            first adapter was.
        progress: show a bar while a row scores.
        generation: `free` or `constrained`: rows write lists of titles instead of scoring (see `GenerationRow`).

    Raises:
        LorarecError: an adapter is unusable, belongs to another backbone, or is called `zero-shot`; an unknown
            `generation`, or one with readout `verdict`.
    """
    if generation not in (None, *GENERATION):
        raise LorarecError(f"unknown generation {generation!r}: choose one of {', '.join(GENERATION)}")
    if generation is not None and readout == "verdict":
        raise LorarecError("generation writes titles after a list of candidates: leave out readout=verdict")
    if ZERO_SHOT in adapters:
        raise LorarecError(f"the row name {ZERO_SHOT} is taken by the backbone alone: choose another")
    read = {
        name: adapter if isinstance(adapter, Adapter) else read_adapter(adapter, backbone)
        for name, adapter in adapters.items()
    }
    rows: dict[str, RankerRow | GenerationRow] = {}
    prompted = prompt_settings(next(iter(read.values()), None))
    if generation is not None:
        del prompted["readout"]
        written = {"progress": progress, "constrained": generation == CONSTRAINED}
        rows[ZERO_SHOT] = GenerationRow(backbone, dataset.titles, None, **written, **prompted)
        for name, adapter in read.items():
            rows[name] = GenerationRow(backbone, dataset.titles, adapter, **written)
        return rows
    if readout is not None:
        prompted["readout"] = readout
    rows[ZERO_SHOT] = RankerRow(backbone, dataset.titles, None, progress, **prompted)
    for name, adapter in read.items():
        rows[name] = RankerRow(backbone, dataset.titles, adapter, progress, readout=readout)
    return rows


def split_warning(adapter: Adapter, dataset: Dataset, split: Split) -> str | None:
    """One line when an adapter was trained on another split of this very dataset, so that it may know test items."""
    for trained in trained_on(adapter):
        if trained.get("fingerprint") == dataset.fingerprint and trained.get("split") != split.cases:
            return (
                f"adapter {_source(adapter)} was trained on another split of {dataset.name} ({trained.get('split')}, "
                f"not {split.cases}) and may have seen test items: its figures are not comparable"
            )
    return None


def _source(adapter: Adapter) -> str:
    return "in memory" if adapter.folder is None else f"{adapter.folder} ({adapter.fingerprint})"
