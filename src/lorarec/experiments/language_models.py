"""The language-model rows: the backbone alone, adapters and their mixtures (MoLoRec, arXiv 2502.08271).

Options are those of `TrainingConfig`. Adapters lie in `TrainingData.folder` under names that tell backbone, data,
options and seed apart, so rows with the same options share them: the first that needs one trains it, others wait and
read it.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lorarec.data import content_hash
from lorarec.evaluation import AdapterScorer, adapter_scorers
from lorarec.lora import MixingExamples, MixingPrompts, mix, sample_cases
from lorarec.options import build_options
from lorarec.recommenders import Scorer, TrainingData, cached_dir, takes
from lorarec.training import TrainingConfig, train


def zero_shot(
    material: TrainingData,
    *,
    readout: str = "verdict",
    max_history: int = 10,
    max_tokens: int = 1024,
    max_title_tokens: int = 32,
) -> Scorer:
    """The backbone alone, prompted as an adapter with these options."""
    return AdapterScorer(
        _backbone(material),
        material.dataset.titles,
        progress=material.progress,
        readout=readout,
        max_history=max_history,
        max_tokens=max_tokens,
        max_title_tokens=max_title_tokens,
    )


@takes(TrainingConfig)
def general(material: TrainingData, **options: Any) -> Scorer:
    """MoLoRec-G: one adapter for all general domains; nothing of the ranked domain is trained on."""
    return _row(material, _general(material, options))


@takes(TrainingConfig)
def specific(material: TrainingData, **options: Any) -> Scorer:
    """MoLoRec-S: one adapter for the ranked domain."""
    return _row(material, _specific(material, options))


@takes(TrainingConfig, "readout", "loss", "temperature", "evidence", "new_items", "new_targets")
def tallrec(material: TrainingData, **options: Any) -> Scorer:
    """TALLRec (Bao et al., RecSys 2023): one adapter for the ranked domain, which says yes or no to one item.

    A candidate's score is the log-odds of yes against no; the others tell nothing about it. Simplified: negatives,
    one for each next item by default, are drawn, since there are no ratings to say what a user disliked; the adapter
    starts from the backbone alone, without the paper's round of general instructions (Alpaca); the prompt is that of
    the other rows; the negatives of a case share its reading of the history.
    """
    told = {"readout": "verdict", "loss": "pointwise", "evidence": False}
    return _row(material, _specific(material, {"negatives": 1, **options, **told}))


@takes(TrainingConfig)
def second_round(material: TrainingData, **options: Any) -> Scorer:
    """The general adapter, fine-tuned further on the ranked domain (MoLoRec, section 4.3.3)."""
    return _row(material, _specific(material, options, _general(material, options)))


@takes(TrainingConfig)
def mixture_grid(material: TrainingData, *, cases: int = 300, **options: Any) -> Scorer:
    """MoLoRec with the weights that rank `cases` validation cases best."""
    pair = adapter_pair(material, options)

    def make(out: Path) -> None:
        mix(
            _backbone(material),
            pair,
            out,
            method="grid",
            dataset=material.dataset,
            split=material.split,
            cases=cases,
            seed=material.seed,
        )

    return _row(material, cached_dir(material, "grid", [*_names(pair), cases, material.seed], make))


@takes(TrainingConfig)
def mixture_entropy(material: TrainingData, *, prompts: int = 100, **options: Any) -> Scorer:
    """MoLoRec with the weights of the lowest entropy over some of the ranked cases, unlabelled (equation 10)."""
    return _ByEntropy(material, adapter_pair(material, options), prompts)


class _ByEntropy:
    """Mixes anew for the cases of each call, of which it sees no target."""

    def __init__(self, material: TrainingData, pair: list[Path], prompts: int) -> None:
        self.material, self.pair, self.prompts = material, pair, prompts
        self.about = ""

    def __call__(self, cases: pl.DataFrame) -> list[np.ndarray]:
        material, backbone = self.material, _backbone(self.material)
        drawn = sample_cases(cases, self.prompts, material.seed)
        prompts = MixingPrompts(backbone, self.pair)
        examples = MixingExamples(prompts.builder, prompts.examples(material.dataset, material.split, drawn))

        def make(out: Path) -> None:
            mix(backbone, self.pair, out, examples=examples)

        row = _row(material, cached_dir(material, "entropy", [*_names(self.pair), content_hash(drawn)], make))
        scores = row(cases)
        self.about = row.about
        return scores


def adapter_pair(material: TrainingData, options: dict[str, Any]) -> list[Path]:
    """Folders of the general and the specific adapter with these options, trained where they are not there yet."""
    return [_general(material, options), _specific(material, options)]


def _general(material: TrainingData, options: dict[str, Any]) -> Path:
    material.need("general")
    return _trained(material, "general", options)


def _specific(material: TrainingData, options: dict[str, Any], start: Path | None = None) -> Path:
    return _trained(material, "specific" if start is None else "second-round", options, start)


def _trained(material: TrainingData, kind: str, options: dict[str, Any], start: Path | None = None) -> Path:
    """The adapter's folder; trained first, or finished, where it is not there."""
    backbone = _backbone(material)
    pairs = list(material.general) if kind == "general" else [(material.dataset, material.split)]
    chosen = asdict(build_options(TrainingConfig, options | {"seed": material.seed}))
    data = [[dataset.fingerprint, split.fingerprint] for dataset, split in pairs]

    def make(out: Path) -> None:
        train(backbone, pairs, out, start_from=start, resume=True, progress=material.progress, **chosen)

    return cached_dir(material, kind, [backbone.fingerprint, data, chosen, start and start.name], make)


def _row(material: TrainingData, folder: Path) -> AdapterScorer:
    rows = adapter_scorers(
        _backbone(material), material.dataset, material.split, {"row": folder}, progress=material.progress
    )
    return rows["row"]


def _backbone(material: TrainingData) -> Any:
    material.need("backbone")
    return material.backbone


def _names(folders: list[Path]) -> list[str]:
    return [folder.name for folder in folders]
