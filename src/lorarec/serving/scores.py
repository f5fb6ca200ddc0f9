"""Scores and mixtures told as answers."""

import numpy as np

from lorarec.lora import part_weights
from lorarec.ranking import score_parts
from lorarec.scoring import posterior
from lorarec.serving.engine import LoadedAdapter, Mixture
from lorarec.serving.request_prompts import UNKNOWN, RequestCase, RequestPrompts
from lorarec.serving.responses import LayerWeights, RankedItem, RankResponse, UserWeights


def ranking(
    case: RequestCase,
    ranker_scores: np.ndarray,
    mixture: Mixture,
    prompting: RequestPrompts,
    prior: np.ndarray | None = None,
) -> RankResponse:
    """The candidates of a case, best first, with their scores, and what gave them.

    Args:
        ranker_scores: (candidates,) log-odds or log-probabilities, as the readout of the mixture says.
        prior: (candidates,) logarithm of a prior that is added; zeros when None.
    """
    prior = np.zeros_like(ranker_scores) if prior is None else prior
    scores = ranker_scores + prior
    shares, readout = posterior(scores), prompting.readout(mixture)
    ranked = [
        RankedItem(
            item_id=None if case.candidates[place].startswith(UNKNOWN) else case.candidates[place],
            title=prompting.title(case.candidates[place]),
            score=float(scores[place]),
            **score_parts(readout, ranker_scores[place], prior[place]),
            probability=float(shares[place]),
            candidate=int(place),
        )
        for place in np.argsort(-scores, kind="stable")
    ]
    personal = {
        one.name: UserWeights(
            routed=case.past is not None,
            parts=list(one.chooser.names),
            layers=dict(zip(one.chooser.layers, own.tolist(), strict=True)),
        )
        for one, own in mixture.own.items()
        if one.chooser
    }
    return RankResponse(ranking=ranked, mixture={one.name: w for one, w in mixture.shares.items()}, personal=personal)


def layer_weights(one: LoadedAdapter) -> list[LayerWeights]:
    """What an adapter was mixed from, or the mean weights of a personal one."""
    if one.chooser:
        mean = zip(one.chooser.layers, one.chooser.weights(None).tolist(), strict=True)
        found = {layer: dict(zip(one.chooser.names, weights, strict=True)) for layer, weights in mean}
    else:
        found = part_weights(one.parts[0], one.name)
    return [LayerWeights(layer=layer, weights=weights) for layer, weights in found.items()]
