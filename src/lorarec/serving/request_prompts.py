"""From a request's items to the prompt an adapter was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from lorarec.backbone import Backbone
from lorarec.data import CANDIDATES, HISTORY, USER, Cooccurrence, Dataset
from lorarec.lora import prompt_config, shared_prompt_config
from lorarec.personal import UserHistory
from lorarec.prompts import PromptBuilder, PromptConfig, case_examples
from lorarec.ranking import shorter_histories, whole_evidence
from lorarec.serving.engine import LoadedAdapter, Mixture, ScoringRequest
from lorarec.serving.errors import ApiError
from lorarec.serving.requests import Item, Title

#: Before a title that stands for itself, where else an item id would stand; no id of a request has it.
UNKNOWN = "\0"


@dataclass(frozen=True)
class RequestCase:
    """What is asked: item ids of the catalogue, or `UNKNOWN` with a title.

    Attributes:
        user: whose history it is, if a stored one.
        past: the stored history with its times.
    """

    user: str | None
    history: Sequence[str]
    candidates: Sequence[str]
    past: UserHistory | None = None


class RequestPrompts:
    """Builds rows for the engine, as a `Ranker` of the same adapters would. Rows are made by one thread only.

    Args:
        dataset: the catalogue, and the interactions that evidence counts.
    """

    def __init__(self, backbone: Backbone, dataset: Dataset) -> None:
        self._backbone = backbone
        self._dataset = dataset
        self._builders: dict[PromptConfig, PromptBuilder] = {}
        self._evidence: Cooccurrence | None = None

    def title(self, item: str) -> str:
        """The title of an item of the catalogue, or what follows `UNKNOWN`."""
        return item.removeprefix(UNKNOWN) if item.startswith(UNKNOWN) else self._dataset.titles[item]

    def ids(self, items: Sequence[Item], field: str) -> list[str]:
        """The items of a field of a request: ids of the catalogue, or `UNKNOWN` with a title.

        Raises:
            Problem: an unknown id.
        """
        return [
            UNKNOWN + item.title if isinstance(item, Title) else self.known(item, f"{field}.{place}")
            for place, item in enumerate(items)
        ]

    def known(self, item: str, field: str) -> str:
        """An id of the catalogue.

        Raises:
            Problem: it is none.
        """
        if item not in self._dataset.titles:
            raise ApiError(422, f'item {item!r} is not in the catalogue: give an id of it, or {{"title": ...}}', field)
        return item

    def row(self, case: RequestCase, mixture: Mixture) -> ScoringRequest:
        """The prompt of a case with its candidates, and the mixture that scores it.

        Raises:
            LorarecError: the candidates do not fit into a prompt.
        """
        prompt = _prompt(mixture.shares)
        shown = case.history[-prompt.max_history :]
        frame = pl.DataFrame(
            {USER: [case.user], HISTORY: [shown], CANDIDATES: [case.candidates]},
            schema={USER: pl.String, HISTORY: pl.List(pl.String), CANDIDATES: pl.List(pl.String)},
        )
        titles = {item: self.title(item) for item in (*shown, *case.candidates)}
        builder = self._builder(prompt)
        evidence = self.evidence() if prompt.evidence else None
        return ScoringRequest(case_examples(frame, titles, builder, prompt.max_history, evidence)[0], builder, mixture)

    def readout(self, mixture: Mixture) -> str:
        """How a mixture's scores are read: `verdict` or `likelihood`."""
        return _prompt(mixture.shares).readout

    def mixture(self, case: RequestCase, shares: Mapping[LoadedAdapter, float]) -> Mixture:
        """What scores a case: the shares of adapters and choosers, and what each chooser gives the case's user."""
        own = {one: one.chooser.weights(case.past) for one in shares if one.chooser}
        return Mixture(shares, own)

    def rows_without(self, case: RequestCase, mixture: Mixture) -> list[ScoringRequest]:
        """The row of a case, then those without each item of the history that its prompt shows, oldest first.

        Raises:
            LorarecError: the candidates do not fit into a prompt.
        """
        histories = shorter_histories(case.history, _prompt(mixture.shares).max_history)
        return [self.row(replace(case, history=history), mixture) for history in histories]

    def evidence(self) -> Cooccurrence:
        """Counts over all interactions of the dataset, made once; events stored later do not enter them."""
        if self._evidence is None:
            self._evidence = whole_evidence(self._dataset)
        return self._evidence

    def _builder(self, prompt: PromptConfig) -> PromptBuilder:
        """Return a builder; builders are reused since they cache the tokens of titles."""
        if prompt not in self._builders:
            self._builders[prompt] = self._backbone.prompt_builder(prompt)
        return self._builders[prompt]


def _prompt(shares: Mapping[LoadedAdapter, float]) -> PromptConfig:
    return shared_prompt_config({one.name: one.prompt for one in shares}) if shares else prompt_config(None)
