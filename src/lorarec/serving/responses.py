"""Responses of the API, assembled from scores and mixtures."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lorarec.lora import exported_user, part_weights
from lorarec.ranking import FusedScores, influences, score_parts
from lorarec.retrieval import CatalogueRules
from lorarec.scoring import posterior
from lorarec.serving.adapter_registry import AdapterRegistry
from lorarec.serving.adapter_schemas import AdapterDetails, AdapterInfo, AdaptersResponse, FusionInfo, LayerWeights
from lorarec.serving.catalogue import Catalogue
from lorarec.serving.engine import LoadedAdapter, Mixture
from lorarec.serving.errors import ApiError
from lorarec.serving.fusion import FUSION, ServedFusion
from lorarec.serving.histories import StoredEvent
from lorarec.serving.item_schemas import ItemDetails
from lorarec.serving.pages import read_cursor, write_cursor
from lorarec.serving.request_prompts import RequestCase, RequestPrompts, catalogue_id
from lorarec.serving.response_schemas import (
    CatalogueItem,
    ExplainResponse,
    ItemInfluence,
    ItemsResponse,
    RankedItem,
    RankResponse,
    UserWeights,
)
from lorarec.serving.user_schemas import LoggedAnswer, StoredInteraction, StoredUser


def rank_response(
    case: RequestCase,
    ranker_scores: np.ndarray,
    mixture: Mixture,
    prompts: RequestPrompts,
    tokens: int,
    prior: np.ndarray | None = None,
) -> RankResponse:
    """Order the candidates of a case by score, best first.

    Args:
        case: History and candidates.
        ranker_scores: Log-odds or log-probabilities (candidates,), by the readout of the mixture.
        mixture: Weights that the candidates were scored with.
        prompts: Titles of the items, and the readout.
        tokens: Number of tokens that the model read.
        prior: Logarithm (candidates,) of a prior that is added to the scores; zeros if None.
    """
    prior = np.zeros_like(ranker_scores) if prior is None else prior
    scores = ranker_scores + prior
    probabilities, readout = posterior(scores), prompts.readout(mixture)
    ranking = [
        RankedItem(
            item_id=catalogue_id(case.candidates[index]),
            title=prompts.title(case.candidates[index]),
            score=float(scores[index]),
            **score_parts(readout, ranker_scores[index], prior[index]),
            probability=float(probabilities[index]),
            candidate=int(index),
        )
        for index in np.argsort(-scores, kind="stable")
    ]
    personal = {
        adapter.name: UserWeights(
            routed=case.user_history is not None,
            parts=list(adapter.user_router.names),
            layers=dict(zip(adapter.user_router.layers, weights.tolist(), strict=True)),
        )
        for adapter, weights in mixture.part_weights.items()
        if adapter.user_router
    }
    names = {adapter.name: weight for adapter, weight in mixture.weights.items()}
    versions = {adapter.name: adapter.fingerprint for adapter in mixture.weights}
    return RankResponse(ranking=ranking, mixture=names, versions=versions, personal=personal, tokens=tokens)


def fused_response(
    case: RequestCase, fused: FusedScores, fusion: ServedFusion, tokens: int, prompts: RequestPrompts
) -> RankResponse:
    """Order the candidates of a case by the scores of a fusion, best first."""
    scores = fused.log_probabilities
    ranking = [
        RankedItem(
            item_id=catalogue_id(case.candidates[index]),
            title=prompts.title(case.candidates[index]),
            score=float(scores[index]),
            log_odds=None,
            log_likelihood=None,
            log_prior=None,
            probability=float(np.exp(scores[index])),
            parts=fused.parts_of(index),
            candidate=int(index),
        )
        for index in np.argsort(-scores, kind="stable")
    ]
    return _by_fusion(fusion, ranking, tokens)


def empty_response(fusion: ServedFusion | None) -> RankResponse:
    """Return the response of a request for which nothing is left to rank."""
    if fusion:
        return _by_fusion(fusion, [], 0)
    return RankResponse(ranking=[], mixture={}, versions={}, personal={}, tokens=0)


def _by_fusion(fusion: ServedFusion, ranking: list[RankedItem], tokens: int) -> RankResponse:
    versions = {FUSION: fusion.version}
    return RankResponse(ranking=ranking, fusion=True, mixture={}, versions=versions, personal={}, tokens=tokens)


def recommend_response(ranked: RankResponse, rules: CatalogueRules, rows: Sequence[int], top: int) -> RankResponse:
    """Keep the best of ranked candidates by their scores and the rules of a request.

    Args:
        ranked: All candidates.
        rules: Limits and boosts.
        rows: Row of each candidate in the catalogue.
        top: Maximum number of items.
    """
    candidates = sorted(ranked.ranking, key=lambda item: item.candidate)
    boosts = rules.added(rows)
    best = rules.best(rows, np.array([item.score for item in candidates]), top)
    ranking = [candidates[place].model_copy(update={"boost": float(boosts[place])}) for place in best]
    return ranked.model_copy(update={"ranking": ranking})


def explain_response(
    case: RequestCase,
    ranked: RankResponse,
    scores: Sequence[np.ndarray],
    candidate: int,
    evidence: dict[str, str],
    prompts: RequestPrompts,
) -> ExplainResponse:
    """Attribute the score of a candidate to the items of the history.

    Args:
        case: History and candidates.
        ranked: Response for the whole history.
        scores: Scores (candidates,) with the whole history, then without each of its latest items.
        candidate: Index of the candidate.
        evidence: Words about the candidate by name of the adapter (see `RequestPrompts.evidence_words`).
        prompts: Titles of the items.
    """
    effects = influences(scores, candidate)
    history = [
        ItemInfluence(item_id=catalogue_id(item), title=prompts.title(item), score=score, probability=probability)
        for item, (score, probability) in zip(case.history[-len(effects) :], effects.tolist(), strict=True)
    ]
    (explained,) = (item for item in ranked.ranking if item.candidate == candidate)
    return ExplainResponse(
        candidate=explained,
        history=history,
        evidence=evidence,
        fusion=ranked.fusion,
        mixture=ranked.mixture,
        versions=ranked.versions,
        personal=ranked.personal,
    )


def items_response(item_ids: Sequence[str], prompts: RequestPrompts) -> ItemsResponse:
    """Add titles to item ids of the catalogue."""
    return ItemsResponse(items=[CatalogueItem(item_id=item, title=prompts.title(item)) for item in item_ids])


def item_details(item_id: str, catalogue: Catalogue) -> ItemDetails:
    """Describe an item of the catalogue.

    Raises:
        ApiError: 404, if there is no such item.
    """
    state = catalogue.state
    title = state.adapters.dataset.titles.get(item_id)
    if title is None:
        raise ApiError(404, f"item {item_id!r} is not in the catalogue: add it with POST /v1/items", "item_id")
    return ItemDetails(
        item_id=item_id, title=title, columns=catalogue.columns(item_id), withdrawn=state.is_withdrawn(item_id)
    )


def stored_user(user_id: str, events: Sequence[StoredEvent], answers: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the JSON of a response with all that is stored of a user.

    Args:
        user_id: Id of the user.
        events: Interactions.
        answers: Rows of the answer log.
    """
    interactions = [StoredInteraction(**asdict(event)) for event in events]
    logged = [LoggedAnswer.model_validate(answer) for answer in answers]
    return StoredUser(user_id=user_id, events=interactions, answers=logged).model_dump_json().encode()


def fusion_info(fusion: ServedFusion) -> FusionInfo:
    """Describe the fusion of a service."""
    return FusionInfo(recommenders=fusion.kinds, new_item_prior=fusion.new_item_prior)


def adapters_response(
    registry: AdapterRegistry, fusion: ServedFusion | None, limit: int | None, cursor: str | None
) -> AdaptersResponse:
    """Return a page of the adapters that are loaded or can be loaded, in the order of their names.

    Args:
        registry: The adapters.
        fusion: The fusion of the service, or None.
        limit: Maximum number of adapters; None for all.
        cursor: Cursor of the page before; None for the first page.

    Raises:
        ApiError: 422, if the cursor is not of this list.
    """
    available = registry.available()
    names = sorted({*available, *registry.loaded, *registry.unavailable})
    after = names if cursor is None else [name for name in names if name > read_cursor(cursor, [str])[0]]
    page = after if limit is None else after[:limit]
    loaded = {name: each for name, each in registry.loaded.items() if name in page}
    return AdaptersResponse(
        loaded=[adapter_info(each, available, registry.previous.get(name)) for name, each in loaded.items()],
        available=[name for name in page if name in available],
        kinds={name: available[name] for name in page if name in available},
        unavailable={name: reason for name, reason in registry.unavailable.items() if name in page},
        fusion=fusion_info(fusion) if fusion else None,
        aliases=dict(registry.names.aliases),
        default=registry.names.default,
        total=len(names),
        next=write_cursor([page[-1]]) if len(page) < len(after) else None,
    )


def adapter_info(
    adapter: LoadedAdapter, available: Collection[str], previous: LoadedAdapter | None = None
) -> AdapterInfo:
    """Describe a loaded adapter.

    Args:
        adapter: The adapter.
        available: Names that the adapters folder lists.
        previous: Version that a rollback puts back, or None.
    """
    return AdapterInfo(
        name=adapter.name,
        kind=adapter.kind,
        fingerprint=adapter.fingerprint,
        previous=previous.fingerprint if previous else None,
        rank=max(rank for part in adapter.parts for rank in part.ranks.values()),
        readout=adapter.prompt.readout,
        in_folder=adapter.name in available,
    )


def adapter_details(
    adapter: LoadedAdapter, available: Collection[str], previous: LoadedAdapter | None = None
) -> AdapterDetails:
    """Describe a loaded adapter and what it was mixed from, layer by layer.

    Args:
        adapter: The adapter.
        available: Names that the adapters folder lists.
        previous: Version that a rollback puts back, or None.
    """
    return AdapterDetails(
        **adapter_info(adapter, available, previous).model_dump(),
        user_id=None if adapter.user_router else exported_user(adapter.parts[0]),
        layers=_layer_weights(adapter),
    )


def _layer_weights(adapter: LoadedAdapter) -> list[LayerWeights]:
    router = adapter.user_router
    if router is None:
        layers = part_weights(adapter.parts[0], adapter.name)
    else:
        mean = zip(router.layers, router.weights(None).tolist(), strict=True)
        layers = {layer: dict(zip(router.names, weights, strict=True)) for layer, weights in mean}
    return [LayerWeights(layer=layer, weights=weights) for layer, weights in layers.items()]
