"""Prompts of requests, built as the adapters were prompted in training."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from lorarec.backbone import Backbone
from lorarec.data import CANDIDATES, HISTORY, USER, Dataset, Evidence, EvidenceModel
from lorarec.lora import shared_prompt_config
from lorarec.personal import UserHistory
from lorarec.prompts import PromptBuilder, PromptConfig, case_examples
from lorarec.ranking import shorter_histories
from lorarec.recommenders import make_evidence
from lorarec.serving.engine import LoadedAdapter, Mixture, ScoringRequest
from lorarec.serving.errors import ApiError, Fault
from lorarec.serving.schemas import (
    HistoryItem,
    InHistory,
    Item,
    ItemTitle,
)

#: Prefix of a title that takes the place of an item id; requests cannot hold it, so no id begins with it.
TITLE_PREFIX = "\0"


@dataclass(frozen=True)
class RequestCase:
    """History and candidates of a request; items are ids of the catalogue, or titles after `TITLE_PREFIX`.

    Attributes:
        user: Id of the user whose stored history is read; None if the request gives the history.
        history: Items of the history, oldest first.
        candidates: Items to score.
        user_history: The history with its times; None if the request gives the history without them.
    """

    user: str | None
    history: Sequence[str]
    candidates: Sequence[str]
    user_history: UserHistory | None = None


def catalogue_id(item: str) -> str | None:
    """Return the id of an item of a case, or None for an item that is given by its title."""
    return None if item.startswith(TITLE_PREFIX) else item


def _case_item(item: Item | InHistory) -> str:
    if isinstance(item, HistoryItem):
        return item.item_id
    return TITLE_PREFIX + item.title if isinstance(item, ItemTitle) else item


def case_frame(case: RequestCase, history: Sequence[str]) -> pl.DataFrame:
    """Return a frame with the user and the candidates of a case, and a history."""
    return pl.DataFrame(
        {USER: [case.user], HISTORY: [history], CANDIDATES: [case.candidates]},
        schema={USER: pl.String, HISTORY: pl.List(pl.String), CANDIDATES: pl.List(pl.String)},
    )


class RequestPrompts:
    """Build prompts as a `Ranker` with the same adapters would. `scoring_request` is for one thread only.

    Args:
        backbone: Language model whose tokenizer is used.
        dataset: Catalogue, and the interactions that evidence is made of.
    """

    def __init__(self, backbone: Backbone, dataset: Dataset) -> None:
        self._backbone = backbone
        self._dataset = dataset
        self._titles: Mapping[str, str] = dataset.titles
        self._builders: dict[PromptConfig, PromptBuilder] = {}
        self._evidence: dict[EvidenceModel | None, Evidence | None] = {}

    def title(self, item: str) -> str:
        """Return the title of an item of a case."""
        return item.removeprefix(TITLE_PREFIX) if item.startswith(TITLE_PREFIX) else self._titles[item]

    def has_item(self, item: str) -> bool:
        """Return whether an id is one of the catalogue."""
        return item in self._titles

    def set_titles(self, titles: Mapping[str, str]) -> None:
        """Let the catalogue have further items or other titles; it is called in the thread that builds prompts."""
        self._evidence = {model: each and each.with_titles(titles) for model, each in self._evidence.items()}
        self._titles = titles

    def case_items(self, items: Sequence[Item | InHistory], field: str) -> list[str]:
        """Convert the items of a field of a request to items of a case.

        Raises:
            ApiError: 422, with all ids that are not in the catalogue.
        """
        self.check_ids(
            {
                f"{field}.{index}": item if isinstance(item, str) else item.item_id
                for index, item in enumerate(items)
                if isinstance(item, str | HistoryItem)
            }
        )
        return [_case_item(item) for item in items]

    def check_ids(self, ids: Mapping[str, str]) -> None:
        """Refuse item ids, by the fields that hold them, if one is not in the catalogue.

        Raises:
            ApiError: 422, with all ids that are not in the catalogue.
        """
        message = 'item {!r} is not in the catalogue: give an id of it, or {{"title": ...}}'
        unknown = {field: item for field, item in ids.items() if item not in self._titles}
        if unknown:
            raise ApiError(422, faults=[Fault(message.format(item), field) for field, item in unknown.items()])

    def scoring_request(self, case: RequestCase, mixture: Mixture, cached: bool = True) -> ScoringRequest:
        """Build the prompt of a case for the mixture that scores it.

        Args:
            case: History and candidates.
            mixture: Weights of the adapters.
            cached: Whether the cache of prompts is used.

        Raises:
            LorarecError: If the candidates do not fit into a prompt.
        """
        prompt = _prompt_config(mixture)
        titles = {item: self.title(item) for item in (*case.history[-prompt.max_history :], *case.candidates)}
        builder = self._builder(prompt)
        evidence = self._evidence_of(mixture, prompt) if prompt.evidence else None
        (example,) = case_examples(case_frame(case, case.history), titles, builder, prompt.max_history, evidence)
        return ScoringRequest(example, builder, mixture, cached)

    def leave_one_out_requests(self, case: RequestCase, mixture: Mixture) -> list[ScoringRequest]:
        """Build the request of a case, then one without each item of the history in its prompt, oldest first.

        Raises:
            LorarecError: If the candidates do not fit into a prompt.
        """
        cases = leave_one_out_cases(case, _prompt_config(mixture).max_history)
        # Shortened histories are not asked for again: they must not displace other prompts from the cache.
        return [self.scoring_request(each, mixture, cached=each is cases[0]) for each in cases]

    def evidence_words(self, case: RequestCase, item: str, mixtures: Sequence[Mixture]) -> dict[str, str]:
        """Return the words about a candidate that the prompt of each adapter has; adapters without evidence have none.

        Args:
            case: History.
            item: Candidate.
            mixtures: Mixtures that score the case.
        """
        words: dict[str, str] = {}
        for mixture in mixtures:
            prompt = _prompt_config(mixture)
            evidence = self._evidence_of(mixture, prompt) if prompt.evidence else None
            if evidence:
                (word,) = evidence.hints(case.history, [item], case.user, max_history=prompt.max_history)
                words |= {adapter.name: word for adapter in mixture.weights}
        return words

    def readout(self, mixture: Mixture) -> str:
        """Return the readout of a mixture, `verdict` or `likelihood`."""
        return _prompt_config(mixture).readout

    def mixture(self, case: RequestCase, weights: Mapping[LoadedAdapter, float]) -> Mixture:
        """Return a mixture in which each personal adapter has the weights of the user of a case."""
        part_weights = {
            adapter: adapter.user_router.weights(case.user_history) for adapter in weights if adapter.user_router
        }
        return Mixture(weights, part_weights)

    def make_evidence(self, adapters: Iterable[LoadedAdapter]) -> None:
        """Make the evidence that adapters need, so that no request waits for it."""
        for adapter in adapters:
            if adapter.prompt.evidence:
                self.evidence(adapter.prompt)

    def evidence(self, prompt: PromptConfig) -> Evidence | None:
        """Return the evidence of all interactions of the dataset, made once; later events do not enter."""
        if prompt.evidence_model not in self._evidence:
            evidence = make_evidence(prompt, self._dataset)
            self._evidence[prompt.evidence_model] = evidence and evidence.with_titles(self._titles)
        return self._evidence[prompt.evidence_model]

    def _evidence_of(self, mixture: Mixture, prompt: PromptConfig) -> Evidence | None:
        own = [adapter.evidence for adapter in mixture.weights if adapter.evidence is not None]
        return own[0] if own else self.evidence(prompt)

    def _builder(self, prompt: PromptConfig) -> PromptBuilder:
        """Return a builder of prompts; builders are reused because they cache the tokens of titles."""
        if prompt not in self._builders:
            self._builders[prompt] = self._backbone.prompt_builder(prompt)
        return self._builders[prompt]


def leave_one_out_cases(case: RequestCase, count: int) -> list[RequestCase]:
    """Return a case, then the case without each of the latest `count` items of its history, oldest first."""
    return [replace(case, history=history) for history in shorter_histories(case.history, count)]


def _prompt_config(mixture: Mixture) -> PromptConfig:
    """Return how a mixture is prompted; the backbone alone is prompted by default."""
    if not mixture.weights:
        return PromptConfig()
    return shared_prompt_config({adapter.name: adapter.prompt for adapter in mixture.weights})
