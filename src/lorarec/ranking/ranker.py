"""Ranker: a backbone, an adapter folded into it, and scores for candidates."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import polars as pl

from lorarec.backbone import Backbone
from lorarec.data import Cooccurrence
from lorarec.errors import LorarecError
from lorarec.io import track
from lorarec.lora import Adapter, check_backbone, merge, prompt_settings, read_adapter
from lorarec.prompts import Example, PromptBuilder, case_examples
from lorarec.ranking.generation import generate_titles
from lorarec.ranking.vllm_engine import VllmEngine
from lorarec.scoring import score


class Ranker:
    """Scores candidates for prompts or histories, all candidates of a prompt in one pass.

    The adapter is folded into the backbone's weights, so it costs nothing per request; `close` (or leaving a `with`
    block) puts the backbone's own weights back. One backbone serves one open Ranker at a time.

    Args:
        adapter: a PEFT folder, an `Adapter`, or None for the backbone alone.
        readout: `verdict` or `likelihood`; what the adapter was trained with when None (`verdict` without adapter).
        template: a Jinja2 file in place of the bundled one; the adapter's own when None.
        max_tokens: the longest prompt plus branch.
        max_title_tokens: titles are cut to this many tokens.
        max_history: the latest items of a history that the prompt shows.
        token_budget: padded tokens per forward pass: bounds memory, does not change results.
        engine: vLLM with this backbone in it; it scores, and `backbone` stays as it is. torch when None.

    Attributes:
        evidence: whether the adapter was trained to read notes about candidates (see `lorarec.data.Cooccurrence`).

    Raises:
        LorarecError: the adapter is unusable or of another backbone, or the readout is unknown.
    """

    def __init__(
        self,
        backbone: Backbone,
        adapter: str | Path | Adapter | None = None,
        readout: str | None = None,
        template: str | Path | None = None,
        max_tokens: int | None = None,
        max_title_tokens: int | None = None,
        max_history: int | None = None,
        token_budget: int = 8192,
        engine: VllmEngine | None = None,
    ) -> None:
        self.backbone = backbone
        self.engine = engine
        self._folded = None
        chosen = None
        if adapter is not None:
            chosen = adapter if isinstance(adapter, Adapter) else read_adapter(adapter)
            check_backbone(chosen, backbone)
        trained = prompt_settings(chosen)
        self.max_history = max_history or trained["max_history"]
        self.evidence = bool(trained["evidence"])
        self.token_budget = token_budget
        self.builder = PromptBuilder(
            backbone.tokenizer,
            readout or trained["readout"],
            template or trained["template"],
            backbone.token_limit(max_tokens or trained["max_tokens"]),
            max_title_tokens or trained["max_title_tokens"],
        )
        self._adapter = chosen
        if chosen is not None and engine is None:
            self._folded = merge(backbone.model, chosen)

    @property
    def readout(self) -> str:
        """`verdict` or `likelihood`."""
        return self.builder.readout

    def score(self, prompts: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Score candidate titles for prompts written out in full, up to where a candidate's title begins.

        Prompts are plain text, as titles are: what spells a control token is none. With a backbone that has a chat
        template they are the text of the user's message.

        Returns:
            One (candidates,) float32 array per prompt: log-probabilities (`likelihood`) or log-odds (`verdict`).

        Raises:
            LorarecError: unequal lengths, no candidates, or a prompt that is too long.
        """
        _same_length(prompts, candidates)
        pairs = zip(prompts, candidates, strict=True)
        return self.score_examples([self.builder.from_text(prompt, titles) for prompt, titles in pairs])

    def score_titles(
        self, histories: Sequence[Sequence[str]], candidates: Sequence[Sequence[str]], progress: bool = False
    ) -> list[np.ndarray]:
        """Score candidate titles for histories of titles, oldest first; returns and raises as `score` does."""
        _same_length(histories, candidates)
        pairs = zip(histories, candidates, strict=True)
        examples = [self.builder.example(history[-self.max_history :], titles) for history, titles in pairs]
        return self.score_examples(examples, progress)

    def score_cases(
        self, cases: pl.DataFrame, titles: dict[str, str], evidence: Cooccurrence | None = None, progress: bool = False
    ) -> list[np.ndarray]:
        """Score rows of ids, one (candidates,) float32 array per row; arguments and errors as for `examples`."""
        return self.score_examples(self.examples(cases, titles, evidence), progress)

    def examples(
        self, cases: pl.DataFrame, titles: dict[str, str], evidence: Cooccurrence | None = None
    ) -> list[Example]:
        """Prompts with their branches of rows of ids.

        Args:
            cases: user_id, history and candidates.
            titles: item id -> title.
            evidence: of the training histories; told only where the adapter was trained to read it.

        Raises:
            LorarecError: the adapter reads evidence and there is none, or a prompt that is too long.
        """
        if self.evidence and evidence is None:
            raise LorarecError("this adapter reads evidence of other users: give it, or train with evidence off")
        told = evidence if self.evidence else None
        return case_examples(cases, titles, self.builder, self.max_history, told)

    def write(
        self, examples: Sequence[Example], count: int = 5, constrained: bool = False, progress: bool = False
    ) -> list[list[int | None]]:
        """Let the model write a list of titles for every example; see `generate_titles`."""
        if self.engine is not None:
            return self.engine.write(examples, self.builder, self._adapters(examples), count, constrained, progress)
        shown = track(examples, "Writing", progress)
        return [generate_titles(self.backbone, self.builder, each, count, constrained) for each in shown]

    def _adapters(self, examples: Sequence[Example]) -> list[Adapter | None]:
        return [self._adapter] * len(examples)

    def score_examples(self, examples: Sequence[Example], progress: bool = False) -> list[np.ndarray]:
        """Score what `examples` made; returns as `score` does."""
        if self.engine is not None:
            return self.engine.score(examples, self.builder, self._adapters(examples), progress)
        return score(self.backbone.model, examples, self.builder, self.token_budget, progress)

    def close(self) -> None:
        """Put the backbone's own weights back."""
        if self._folded is not None:
            self._folded.undo()
            self._folded = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _same_length(prompts: Sequence[Any], candidates: Sequence[Any]) -> None:
    if len(prompts) != len(candidates):
        raise LorarecError(f"{len(prompts)} prompts but {len(candidates)} candidate sets: give one set per prompt")
