"""Scores of the candidates that an index proposes: those of a ranker with a prior, or those of a fusion."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import polars as pl

from lorarec.data import Dataset, Evidence
from lorarec.errors import LorarecError
from lorarec.ranking.fusion import FusedScores, Fusion
from lorarec.ranking.index_order import log_prior
from lorarec.ranking.ranker import Ranker
from lorarec.retrieval import Index


@dataclass(frozen=True)
class ProposalScores:
    """Scores by which the candidates of an index are ordered.

    Attributes:
        scores: Scores (candidates,).
        terms: Function of the position of a candidate that returns the terms of its score, as attributes of
            `Recommendation`.
    """

    scores: np.ndarray
    terms: Callable[[int], Mapping[str, Any]]

    @classmethod
    def of_ranker(cls, readout: str, ranker_scores: np.ndarray) -> "ProposalScores":
        """Return the scores of a ranker with this readout, with the prior of the candidates' places."""
        prior = log_prior(len(ranker_scores))
        return cls(ranker_scores + prior, lambda place: score_parts(readout, ranker_scores[place], prior[place]))

    @classmethod
    def of_fusion(cls, fused: FusedScores) -> "ProposalScores":
        """Return the scores of a fusion; the order of the index is one of their parts."""
        return cls(fused.log_probabilities, lambda place: {"parts": fused.parts_of(place)})


def score_proposals(
    ranker: Ranker | Fusion, cases: pl.DataFrame, titles: dict[str, str], evidence: Evidence | None
) -> list[ProposalScores]:
    """Score candidates that an index proposes.

    Args:
        ranker: Ranker, or fusion.
        cases: Columns `user_id`, `history` and `candidates`, which are in the order of the index.
        titles: Item id -> title.
        evidence: Words about candidates, if the ranker reads them; see `Ranker.examples`.

    Raises:
        LorarecError: The ranker reads evidence and there is none, a prompt is too long, or the fusion was not fitted to
            candidates of an index.
    """
    if isinstance(ranker, Fusion):
        return [ProposalScores.of_fusion(each) for each in ranker.score_with_parts(cases, pool=True)]
    return [ProposalScores.of_ranker(ranker.readout, each) for each in ranker.score_cases(cases, titles, evidence)]


class ScoreParts(TypedDict):
    """The terms of a score, named as the attributes of `Recommendation`."""

    log_odds: float | None
    log_likelihood: float | None
    log_prior: float


def score_parts(readout: str, ranker_score: float, prior: float) -> ScoreParts:
    """Return the terms of a score.

    Args:
        readout: `verdict` or `likelihood`.
        ranker_score: The log-odds or log-probability, depending on the readout.
        prior: The item's `log_prior`.
    """
    return {
        "log_odds": float(ranker_score) if readout == "verdict" else None,
        "log_likelihood": float(ranker_score) if readout == "likelihood" else None,
        "log_prior": float(prior),
    }


def default_index(ranker: Ranker | Fusion, dataset: Dataset) -> Index:
    """Build the index of a fusion, or one without a next-item model for a ranker.

    Raises:
        LorarecError: The fusion was fitted to another dataset.
    """
    if isinstance(ranker, Ranker):
        return Index.build(dataset)
    refuse_other_dataset(ranker, dataset)
    return ranker.index()


def refuse_other_dataset(fusion: Fusion, dataset: Dataset) -> None:
    """Refuse a fusion that was fitted to another dataset.

    Raises:
        LorarecError: The fusion was fitted to another dataset.
    """
    fitted = fusion.group.data.dataset
    if fitted.fingerprint != dataset.fingerprint:
        raise LorarecError(
            f"the fusion was fitted to {fitted.name} ({fitted.fingerprint}), not to {dataset.name} "
            f"({dataset.fingerprint}): fuse the recommenders for this dataset"
        )
