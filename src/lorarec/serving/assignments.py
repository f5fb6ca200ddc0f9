"""Assignment of requests to the variants of an experiment, and what is recorded of their answers."""

from dataclasses import dataclass
from typing import TypeVar

from lorarec.errors import LorarecError
from lorarec.serving.adapter_registry import AdapterRegistry
from lorarec.serving.case_scoring import AdapterName
from lorarec.serving.errors import ApiError
from lorarec.serving.experiment import Experiment
from lorarec.serving.request_facts import record_variant, record_versions
from lorarec.serving.response_schemas import ExplainResponse, RankResponse
from lorarec.serving.schemas import ExplainRequest, RankRequest, RecommendRequest

Request = TypeVar("Request", RankRequest, RecommendRequest, ExplainRequest)
Response = TypeVar("Response", RankResponse, ExplainResponse)


@dataclass(frozen=True)
class Assignment:
    """The variant that answers a request.

    Attributes:
        variant: Name of the variant; None if the request names an adapter, or there is no experiment.
        propensity: Probability with which the request was assigned to the variant; None without a variant.
        unit: Id by which it was assigned, that of the user or one that the request gives; None without one.
    """

    variant: str | None = None
    propensity: float | None = None
    unit: str | None = None


class Assignments:
    """Assign requests that name no adapter to the variants of an experiment.

    Args:
        experiment: The experiment, or None.
    """

    def __init__(self, experiment: Experiment | None) -> None:
        self.experiment = experiment

    def require_answers(self, adapters: AdapterRegistry, has_fusion: bool) -> None:
        """Refuse an experiment with a variant that cannot answer, and keep the adapters of the others loaded.

        Raises:
            LorarecError: An adapter of a variant is not loaded, a mixture is not valid, or there is no fusion.
        """
        for variant in self.experiment.variants if self.experiment else ():
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
