"""Assignment of requests to the variants of an experiment, and what is recorded of their answers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from lorarec.errors import LorarecError
from lorarec.serving.adapter_registry import AdapterRegistry
from lorarec.serving.answer_log import AnswerLog, LoggedAnswer
from lorarec.serving.case_scoring import AdapterName
from lorarec.serving.errors import ApiError
from lorarec.serving.experiment import Experiment
from lorarec.serving.request_facts import record_variant, record_versions
from lorarec.serving.request_ids import current_request_id
from lorarec.serving.response_schemas import ExplainResponse, RankResponse
from lorarec.serving.schemas import ExplainRequest, RankRequest, RecommendRequest
from lorarec.serving.shadow import ShadowScorer

Request = TypeVar("Request", RankRequest, RecommendRequest, ExplainRequest)
Response = TypeVar("Response", RankResponse, ExplainResponse)


@dataclass(frozen=True)
class Assignment:
    """The variant that answers a request.

    Attributes:
        variant: Name of the variant; None if the request names an adapter, or there is no experiment.
        propensity: Probability with which the request was assigned to the variant; None without a variant.
        unit: Id by which it was assigned, that of the user or one that the request gives; None without one.
        time: Time at which the request arrived.
    """

    variant: str | None = None
    propensity: float | None = None
    unit: str | None = None
    time: datetime = field(default_factory=lambda: datetime.now(UTC))


class Assignments:
    """Assign requests that name no adapter to the variants of an experiment.

    Args:
        experiment: The experiment, or None.
        log: Log of the answers, or None.
        shadow: Scorer of shadow variants.

    Raises:
        LorarecError: The experiment has shadow variants, and there is no log of answers.
    """

    def __init__(self, experiment: Experiment | None, log: AnswerLog | None, shadow: ShadowScorer) -> None:
        if experiment and experiment.shadow and log is None:
            raise LorarecError("answers of shadow variants are only logged: give option answer_log")
        self.experiment = experiment
        self._log = log
        self._shadow = shadow

    def require_answers(self, adapters: AdapterRegistry, has_fusion: bool) -> None:
        """Refuse an experiment with a variant that cannot answer, and keep the adapters of the others loaded.

        Raises:
            LorarecError: An adapter of a variant is not loaded, a mixture is not valid, or there is no fusion.
        """
        for variant in (*self.experiment.variants, *self.experiment.shadow) if self.experiment else ():
            about = f"variant {variant.name!r}"
            if variant.adapter is None:
                if not has_fusion:
                    raise LorarecError(f"{about} is answered by the fusion, but there is none: give option fusion")
                continue
            try:
                adapters.require(variant.adapter, about)
            except ApiError as error:
                raise LorarecError(f"{about} cannot be answered: {error.message}") from error

    def assign(self, adapter: AdapterName, unit: str | None) -> tuple[AdapterName, Assignment]:
        """Return what answers a request, and its assignment.

        Args:
            adapter: Adapter or mixture that the request names, or None.
            unit: Id of the user, or another id that the request gives for this; None for the control variant.

        Returns:
            The adapter or mixture of the variant, None for the fusion; what the request names if it is not assigned.
        """
        if self.experiment is None or adapter is not None:
            return adapter, Assignment(unit=unit)
        variant = self.experiment.control if unit is None else self.experiment.assign(unit)
        record_variant(variant.name)
        return variant.adapter, Assignment(variant.name, 1.0 if unit is None else variant.share, unit)

    def assign_request(self, request: Request) -> tuple[Request, Assignment]:
        """Return a request with the adapter of the variant that it is assigned to, and the assignment."""
        unit = request.user_id if request.user_id is not None else request.assignment_id
        adapter, assignment = self.assign(request.adapter, unit)
        return request.model_copy(update={"adapter": adapter}), assignment

    def complete(self, assignment: Assignment, response: Response) -> Response:
        """Return a response with the name of the variant, and record the versions of its adapters."""
        record_versions(response.versions)
        return response.model_copy(update={"variant": assignment.variant})

    def complete_ranking(
        self,
        assignment: Assignment,
        response: RankResponse,
        candidates: int,
        answer: Callable[[AdapterName], Awaitable[tuple[RankResponse, int]]],
    ) -> RankResponse:
        """Complete a ranking, log it as an answer, and let shadow variants answer the same request later.

        Args:
            assignment: Assignment of the request.
            response: Ranked items.
            candidates: Number of candidates, of which the response may have the best only.
            answer: Function that answers the request by an adapter, a mixture or the fusion, from its own candidates,
                and returns their number as well.
        """
        request_id = current_request_id()
        self._log_answer(assignment, request_id, False, response, candidates)
        if self.experiment and assignment.variant and response.ranking:
            for variant in self.experiment.shadows(str(request_id)):
                compared = replace(assignment, variant=variant.name, propensity=None)
                log = partial(self._log_answer, compared, request_id, True)
                self._shadow.start(variant, answer, log)
        return self.complete(assignment, response)

    def _log_answer(
        self, assignment: Assignment, request_id: str | None, shadow: bool, response: RankResponse, candidates: int
    ) -> None:
        if self._log is None:
            return
        answer = LoggedAnswer(
            request_id=request_id,
            time=assignment.time,
            user_id=assignment.unit,
            experiment=self.experiment.name if self.experiment and assignment.variant else None,
            variant=assignment.variant,
            propensity=assignment.propensity,
            shadow=shadow,
            versions=[{"name": name, "version": version} for name, version in response.versions.items()],
            item_ids=[item.item_id for item in response.ranking],
            scores=[item.score for item in response.ranking],
            probabilities=[item.probability for item in response.ranking],
            candidates=candidates,
        )
        self._log.add(answer)
