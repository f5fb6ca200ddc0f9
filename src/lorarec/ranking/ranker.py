"""`Ranker` scores and orders candidates with a backbone and an adapter that is merged into its weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import polars as pl

from lorarec.backbone import Backbone
from lorarec.data import Evidence
from lorarec.errors import LorarecError
from lorarec.io import track
from lorarec.lora import Adapter, AdapterLike, merge, prompt_config, read_adapter, warn_of_other_prompts
from lorarec.prompts import Example, TemplateText, case_examples
from lorarec.ranking.engine import Engine
from lorarec.ranking.generation import generate_titles
from lorarec.scoring import posterior, require_finite, score


@dataclass(frozen=True)
class Ranked:
    """A ranked candidate and its score.

    Attributes:
        index: The candidate's index in the list that was ranked.
        title: The candidate's title.
        score: The log-odds of yes against no (readout `verdict`) or the log-probability of the title (`likelihood`).
        probability: The candidate's share of the posterior, the softmax of the scores over the candidates.

    Examples:
        >>> from lorarec import Backbone, Ranker
        >>> best = Ranker(Backbone.from_pretrained("embedded")).rank(["Toy Story"], ["Heat", "Antz"])[0]
        >>> best.title == ["Heat", "Antz"][best.index]
        True
    """

    index: int
    title: str
    score: float
    probability: float


class Ranker:
    """Scores and orders candidates; all candidates of a prompt are scored in one pass.

    The adapter is merged into the backbone's weights, so it costs nothing per request. `close`, or the end of a `with`
    block, restores the backbone's own weights. A backbone can be used by one open ranker at a time.

    Args:
        backbone: The language model.
        adapter: An `Adapter`, such as `mix` returns, or the path or hub id (`owner/name@revision`) of a PEFT folder;
            None for the backbone alone.
        readout: `verdict` or `likelihood`; if None, the readout that the adapter was trained with, or else `verdict`.
        template: The path of a Jinja2 template; if None, the template that the adapter was trained with.
        max_tokens: The maximum number of tokens of a prompt with one candidate.
        max_title_tokens: The maximum number of tokens of a title; longer titles are truncated.
        max_history: The number of items of a history that are read, the latest ones.
        token_budget: The maximum number of tokens in one forward pass, padding included. It bounds the memory and does
            not change the results. None for 2,048 on a CPU and 8,192 on other devices.
        engine: `VllmEngine`, `VllmClient` or `SglangClient` of the same backbone; None for PyTorch.

    Attributes:
        prompt: Options of the prompts.

    Raises:
        LorarecError: The adapter cannot be read or belongs to another backbone, the readout is unknown, or a limit is
            below 1.

    Examples:
        >>> from lorarec import Backbone, Ranker
        >>> backbone = Backbone.from_pretrained("embedded")
        >>> with Ranker(backbone, "adapters/shop") as ranker:
        ...     ranked = ranker.rank(["Toy Story", "Antz"], ["A Bug's Life", "Heat", "Shrek"], top_k=2)
        >>> len(ranked)
        2
        >>> ranked[0].score >= ranked[1].score
        True
    """

    def __init__(
        self,
        backbone: Backbone,
        adapter: AdapterLike | None = None,
        readout: str | None = None,
        template: str | Path | TemplateText | None = None,
        max_tokens: int | None = None,
        max_title_tokens: int | None = None,
        max_history: int | None = None,
        token_budget: int | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.backbone = backbone
        self.engine = engine
        self._merged = None
        chosen = None if adapter is None else read_adapter(adapter, backbone)
        trained = prompt_config(chosen).with_readout(readout)
        template = str(template) if isinstance(template, Path) else template
        self.prompt = replace(
            trained,
            template=template or trained.template,
            max_tokens=trained.max_tokens if max_tokens is None else max_tokens,
            max_title_tokens=trained.max_title_tokens if max_title_tokens is None else max_title_tokens,
            max_history=trained.max_history if max_history is None else max_history,
        )
        self.max_history = self.prompt.max_history
        self.token_budget = token_budget
        self.builder = backbone.prompt_builder(self.prompt)
        self._adapter = chosen
        if chosen is None:
            warn_of_other_prompts(backbone, self.prompt)
        elif engine is None:
            self._merged = merge(backbone.model, chosen)

    @property
    def evidence(self) -> bool:
        """Whether the adapter was trained with evidence, which `lorarec.recommenders.make_evidence` makes."""
        return self.prompt.evidence

    @property
    def readout(self) -> str:
        """`verdict` or `likelihood`."""
        return self.builder.readout

    def rank(self, history: Sequence[str], candidates: Sequence[str], top_k: int | None = None) -> list[Ranked]:
        """Order candidate titles for one history.

        Titles alone do not say what other users chose, so an adapter that reads evidence gets none.
        `score_cases` and `lorarec.recommend` take items of a dataset and provide these words.

        Args:
            history: The titles that the user has chosen, oldest first.
            candidates: The titles to rank.
            top_k: The number of candidates to return; None for all.

        Returns:
            The candidates, best first; candidates with equal scores stay in the order given.

        Raises:
            LorarecError: There are no candidates, a title is empty, `top_k` is below 1, or the prompt is too long.
        """
        return best_first(self.score_titles([history], [candidates])[0], candidates, top_k)

    def score_prompts(self, prompts: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Score candidate titles for prompts that are written out in full.

        Args:
            prompts: Texts that end where a candidate's title begins. They are encoded as plain text, like titles, so
                the spelling of a control token has no effect. If the backbone has a chat template, a prompt is the
                text of the user's message.
            candidates: The titles to score for each prompt.

        Returns:
            One (candidates,) float32 array per prompt: log-odds (`verdict`) or log-probabilities (`likelihood`).

        Raises:
            LorarecError: The numbers of prompts and candidate sets differ, a set is empty, or a prompt is too long.
        """
        _same_length(prompts, candidates)
        pairs = zip(prompts, candidates, strict=True)
        return self.score_examples([self.builder.from_text(prompt, titles) for prompt, titles in pairs])

    def score_titles(
        self, histories: Sequence[Sequence[str]], candidates: Sequence[Sequence[str]], progress: bool = False
    ) -> list[np.ndarray]:
        """Score candidate titles for histories of titles.

        Args:
            histories: The titles that each user has chosen, oldest first.
            candidates: The titles to score for each history.
            progress: Whether to show the progress on standard error.

        Returns:
            One (candidates,) float32 array per history, as `score_prompts` returns it.

        Raises:
            LorarecError: As for `score_prompts`.
        """
        _same_length(histories, candidates)
        pairs = zip(histories, candidates, strict=True)
        examples = [self.builder.example(history[-self.max_history :], titles) for history, titles in pairs]
        return self.score_examples(examples, progress)

    def score_cases(
        self, cases: pl.DataFrame, titles: dict[str, str], evidence: Evidence | None = None, progress: bool = False
    ) -> list[np.ndarray]:
        """Score the candidates of rows of item ids.

        Args:
            cases: The rows; see `examples`.
            titles: Item id -> title.
            evidence: Words about candidates; see `examples`.
            progress: Whether to show the progress on standard error.

        Returns:
            One (candidates,) float32 array per row, as `score_prompts` returns it.

        Raises:
            LorarecError: As for `examples`.
        """
        return self.score_examples(self.examples(cases, titles, evidence), progress)

    def examples(self, cases: pl.DataFrame, titles: dict[str, str], evidence: Evidence | None = None) -> list[Example]:
        """Build the prompts of rows of item ids, with the candidates as branches.

        Args:
            cases: A frame with the columns `user_id`, `history` and `candidates` (item ids).
            titles: Item id -> title.
            evidence: Words about candidates, as `lorarec.recommenders.make_evidence` makes them for `self.prompt`;
                needed if the adapter reads them.

        Raises:
            LorarecError: The adapter reads evidence and there is none or another one, or a prompt is too long.
        """
        if self.evidence and evidence is None:
            raise LorarecError("this adapter reads evidence of other users: give it, or train with evidence off")
        if self.evidence and evidence is not None and evidence.model != self.prompt.evidence_model:
            trained = self.prompt.evidence_model
            raise LorarecError(
                f"this adapter was trained with evidence_model={trained}, but the evidence given has {evidence.model}: "
                "make it by lorarec.recommenders.make_evidence"
            )
        return case_examples(cases, titles, self.builder, self.max_history, evidence if self.evidence else None)

    def generate(
        self, examples: Sequence[Example], count: int = 5, constrained: bool = False, progress: bool = False
    ) -> list[list[int | None]]:
        """Generate a ranked list of titles for every example, as the paper does (MoLoRec, arXiv 2502.08271).

        Args:
            examples: Prompts that `examples` built with the readout `likelihood`.
            count: The number of titles in a list.
            constrained: Whether only candidates that are not listed yet can be generated.
            progress: Whether to show the progress on standard error.

        Returns:
            For every title of every list the index of the candidate that it equals, or None.

        Raises:
            LorarecError: The readout is not `likelihood`.
        """
        if self.engine is not None:
            return self.engine.generate(examples, self.builder, self._adapters(examples), count, constrained, progress)
        tracked = track(examples, "Generating", progress)
        return [generate_titles(self.backbone, self.builder, each, count, constrained) for each in tracked]

    def _adapters(self, examples: Sequence[Example]) -> list[Adapter | None]:
        return [self._adapter] * len(examples)

    def score_examples(self, examples: Sequence[Example], progress: bool = False) -> list[np.ndarray]:
        """Score prompts that `examples` built; the result is that of `score_prompts`.

        Raises:
            LorarecError: A score is NaN or infinite, or the engine refuses the prompts.
        """
        if self.engine is not None:
            return self.engine.score(examples, self.builder, self._adapters(examples), progress)
        return require_finite(score(self.backbone.model, examples, self.builder, self.token_budget, progress))

    def close(self) -> None:
        """Restore the backbone's own weights."""
        if self._merged is not None:
            self._merged.unmerge()
            self._merged = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def best_first(scores: np.ndarray, titles: Sequence[str], top_k: int | None = None) -> list[Ranked]:
    """Order candidates by their scores (candidates,); equal scores stay in the order given.

    Raises:
        LorarecError: `top_k` is below 1.
    """
    if top_k is not None and top_k < 1:
        raise LorarecError(f"top_k must be at least 1, got {top_k}")
    probabilities = posterior(scores)
    order = np.argsort(-scores, kind="stable")[:top_k].tolist()
    return [Ranked(i, titles[i], float(scores[i]), float(probabilities[i])) for i in order]


def _same_length(prompts: Sequence[Any], candidates: Sequence[Any]) -> None:
    if len(prompts) != len(candidates):
        raise LorarecError(f"{len(prompts)} prompts but {len(candidates)} candidate sets: give one set per prompt")
