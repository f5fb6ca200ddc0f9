"""The fusion of a service, whose adapters are scored with those of all other requests."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from safetensors.torch import save

from lorarec.lora import prompt_config
from lorarec.ranking import AdapterScorer, FusedScores, Fusion, TrainedAdapter
from lorarec.recommenders import (
    EASE,
    ItemKNN,
    NextItemRecommender,
    Popularity,
    Recency,
    Recommender,
    SequentialRules,
    TfIdf,
)
from lorarec.serving.engine import LoadedAdapter, Mixture, copy_to_memory
from lorarec.serving.errors import ApiError
from lorarec.serving.request_prompts import RequestCase, case_frame, catalogue_id

#: Name of the fusion in the versions of an answer, and by which a request for a reranking chooses it, since clients of
#: these APIs have to name a model.
FUSION = "fusion"

RecommenderKind = Literal[
    "language model", "next-item model", "item order", "co-occurrence", "titles", "popularity", "other"
]
_KINDS: dict[type[Recommender[Any]], RecommenderKind] = {
    TrainedAdapter: "language model",
    NextItemRecommender: "next-item model",
    SequentialRules: "item order",
    EASE: "co-occurrence",
    ItemKNN: "co-occurrence",
    TfIdf: "titles",
    Popularity: "popularity",
    Recency: "popularity",
}


class ServedFusion:
    """Score cases by a fusion, given the scores of its adapters. Not thread-safe.

    Args:
        fusion: The fusion, which was fitted to candidates of an index as well.

    Attributes:
        adapters: Adapters of the fusion by name. Their prompts hold the co-occurrence words that the fusion was fitted
            with, those of the training part of the split.
        max_history: Number of latest items of a history that an explanation leaves out in turn.
        version: Hash of everything that decides the scores: options, last stages, recommenders and adapters.

    Raises:
        LorarecError: The fusion was fitted to given candidate sets only.
    """

    def __init__(self, fusion: Fusion) -> None:
        fusion.require_pool_model()
        self._fusion = fusion
        self.adapters = {
            name: _loaded_adapter(name, recommender)
            for name, recommender in fusion.group.recommenders.items()
            if isinstance(recommender, TrainedAdapter)
        }
        self.max_history = fusion.max_history
        self.version = _version(fusion)

    @property
    def kinds(self) -> dict[str, RecommenderKind]:
        """Kind of each recommender by its name."""
        return {name: _kind(recommender) for name, recommender in self._fusion.group.recommenders.items()}

    @property
    def new_item_prior(self) -> float | Literal["auto"]:
        """Probability that the target item is a new one; `auto` is the share of new items in the catalogue."""
        return self._fusion.config.new_item_prior

    @property
    def mixtures(self) -> list[Mixture]:
        """One mixture for each adapter, in the order of `adapters`."""
        return [Mixture({adapter: 1.0}) for adapter in self.adapters.values()]

    def score(self, case: RequestCase, adapter_scores: Sequence[np.ndarray], pool: bool) -> FusedScores:
        """Score the candidates of a case.

        Args:
            case: Candidates and history; items of the history that are not in the catalogue are left out.
            adapter_scores: Scores (candidates,) of each adapter, in the order of `adapters`.
            pool: Whether the candidates are those that an index proposes, in its order.
        """
        given = {name: [scores] for name, scores in zip(self.adapters, adapter_scores, strict=True)}
        known = [item for item in case.history if catalogue_id(item) is not None]
        (scores,) = self._fusion.score_with_parts(case_frame(case, known), pool=pool, given=given)
        return scores


def refuse_titles(case: RequestCase) -> None:
    """Refuse a case with candidates outside the catalogue, which the recommenders of a fusion cannot score.

    Raises:
        ApiError: 422, if a candidate is given by its title.
    """
    for index, item in enumerate(case.candidates):
        if catalogue_id(item) is None:
            raise ApiError(
                422,
                "the fusion ranks items of the catalogue only: give one of them, or name an adapter",
                f"candidates.{index}",
            )


def _loaded_adapter(name: str, recommender: TrainedAdapter) -> LoadedAdapter:
    adapter, scorer = copy_to_memory(recommender.adapter), recommender.scorer
    assert isinstance(scorer, AdapterScorer)
    return LoadedAdapter(name, (adapter,), prompt_config(adapter), adapter.fingerprint, evidence=scorer.evidence)


def _version(fusion: Fusion) -> str:
    data = fusion.group.data
    fitted = [data.dataset.fingerprint, data.split.fingerprint, data.seed]
    described = [*fitted, asdict(fusion.config), asdict(fusion.model), asdict(fusion.require_pool_model())]
    digest = hashlib.sha256(json.dumps(described, default=np.ndarray.tolist).encode())
    for name, recommender in fusion.group.recommenders.items():
        if isinstance(recommender, TrainedAdapter):
            digest.update(f"{name}: {recommender.adapter.fingerprint}".encode())
        else:
            digest.update(f"{name}: {type(recommender).__name__} {recommender.config!r}".encode())
            digest.update(save({key: tensor.contiguous() for key, tensor in recommender.tensors().items()}))
    return digest.hexdigest()[:16]


def _kind(recommender: Recommender[Any]) -> RecommenderKind:
    return next((kind for each, kind in _KINDS.items() if isinstance(recommender, each)), "other")
