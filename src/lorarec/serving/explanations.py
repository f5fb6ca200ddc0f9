"""Explains a candidate's score over HTTP as `lorarec.explain` does, without words."""

from lorarec.ranking import influences
from lorarec.serving.errors import ApiError
from lorarec.serving.request_prompts import UNKNOWN
from lorarec.serving.requests import ExplainRequest
from lorarec.serving.responses import ExplainResponse, Influence
from lorarec.serving.scores import ranking
from lorarec.serving.service import Service


async def explain(service: Service, request: ExplainRequest) -> ExplainResponse:
    """What leaving out each item of the history takes from one candidate.

    Raises:
        Problem: no such place among the candidates, an empty history, or as for `Service.rank`.
    """
    if request.candidate >= len(request.candidates):
        raise ApiError(422, f"there are {len(request.candidates)} candidates: count places from 0", "candidate")
    case = await service.case(request)
    if not case.history:
        raise ApiError(422, "an empty history explains nothing: give one item or more", "history")
    with service.batcher.admitted():
        scores, mixture = await service.score(case, request.adapter, service.prompting.rows_without)
    answer = ranking(case, scores[0], mixture, service.prompting)
    effects = influences(scores, request.candidate)
    history = [
        Influence(
            item_id=None if item.startswith(UNKNOWN) else item,
            title=service.prompting.title(item),
            score=score,
            probability=probability,
        )
        for item, (score, probability) in zip(case.history[-len(effects) :], effects.tolist(), strict=True)
    ]
    (candidate,) = (ranked for ranked in answer.ranking if ranked.candidate == request.candidate)
    return ExplainResponse(candidate=candidate, history=history, mixture=answer.mixture, personal=answer.personal)
