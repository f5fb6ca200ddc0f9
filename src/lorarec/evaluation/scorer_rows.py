"""Rows of a table from a backbone and its adapters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorarec.backbone import Backbone
from lorarec.data import Cooccurrence, Dataset, Split
from lorarec.errors import LorarecError
from lorarec.evaluation.adapter_scorer import AdapterScorer, source
from lorarec.evaluation.generation import GenerationScorer
from lorarec.lora import Adapter, prompt_config, read_adapter, trained_on
from lorarec.ranking import VllmEngine

ZERO_SHOT = "zero-shot"
FREE, CONSTRAINED = GENERATION = ("free", "constrained")


def adapter_scorers(
    backbone: Backbone,
    dataset: Dataset,
    split: Split,
    adapters: Mapping[str, str | Path | Adapter],
    readout: str | None = None,
    progress: bool = False,
    generation: str | None = None,
    engine: VllmEngine | None = None,
) -> dict[str, AdapterScorer]:
    """The backbone alone, called `zero-shot`, and a row per adapter.

    Args:
        dataset: where titles come from.
        split: its training part is the evidence for adapters that read it.
        adapters: row name -> PEFT folder or adapter.
        readout: of all rows; what each adapter was trained with when None. The backbone alone is prompted as the
            first adapter was.
        progress: show a bar while a row scores.
        generation: `free` or `constrained`: rows write lists of titles instead of scoring (see `GenerationScorer`).
        engine: vLLM with this backbone and these adapters; torch when None.

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
    rows: dict[str, AdapterScorer] = {}
    evidence = (
        Cooccurrence(split.train, dataset.titles)
        if any(prompt_config(each).evidence for each in read.values())
        else None
    )
    first = prompt_config(next(iter(read.values()), None)).with_readout(readout)
    # Not evidence, which the backbone alone never learned to read.
    prompted: dict[str, Any] = {name: value for name, value in vars(first).items() if name != "evidence"}
    if generation is not None:
        written: dict[str, Any] = {"progress": progress, "constrained": generation == CONSTRAINED, "engine": engine}
        rows[ZERO_SHOT] = GenerationScorer(backbone, dataset.titles, **written, **prompted)
        for name, adapter in read.items():
            rows[name] = GenerationScorer(backbone, dataset.titles, adapter, evidence=evidence, **written)
        return rows
    rows[ZERO_SHOT] = AdapterScorer(backbone, dataset.titles, progress=progress, engine=engine, **prompted)
    for name, adapter in read.items():
        rows[name] = AdapterScorer(
            backbone, dataset.titles, adapter, evidence, progress, readout=readout, engine=engine
        )
    return rows


def split_warning(adapter: Adapter, dataset: Dataset, split: Split) -> str | None:
    """One line when an adapter was trained on another split of this very dataset, so that it may know test items."""
    for trained in trained_on(adapter):
        if trained.get("fingerprint") == dataset.fingerprint and trained.get("split") != split.cases:
            return (
                f"adapter {source(adapter)} was trained on another split of {dataset.name} ({trained.get('split')}, "
                f"not {split.cases}) and may have seen test items: its figures are not comparable"
            )
    return None
