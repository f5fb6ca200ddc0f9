"""The interface of engines: what runs a backbone and its adapters in place of PyTorch, and what all of them check."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import ClassVar, Self, TypeVar

import numpy as np

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.io import track
from lorarec.lora import Adapter, merge
from lorarec.prompts import READOUTS, Example, PromptBuilder, PromptConfig
from lorarec.ranking.generation import TitleList
from lorarec.scoring import score

#: Number of examples in a group: enough to fill an engine's batches, few enough that the outputs fit in memory.
GROUP_SIZE = 64
#: History and candidates of the prompt that every engine scores before it is used.
CHECK_HISTORY = ("Toy Story", "Antz")
CHECK_CANDIDATES = ("A Bug's Life", "Heat", "Shrek")
#: Largest difference to PyTorch's scores of that prompt, for engines that compute in float32 and for others. An engine
#: computes in float32 if it scores the backbone alone within a quarter of the first.
FLOAT32_TOLERANCE = 0.02
TOLERANCE = 0.5
#: Smallest change of a score that rounding does not explain: an adapter that changes less was ignored.
SMALLEST_CHANGE = 1e-4

_T = TypeVar("_T")


class Engine(ABC):
    """What runs a backbone and adapters in place of PyTorch, for any number of `Ranker`s at once.

    Before an adapter is used, its scores of a fixed prompt are compared with those of the backbone alone and, where the
    backbone's weights are loaded, with PyTorch's scores of the same prompt: some versions of servers ignore adapters
    without an error, such as text adapters on multimodal models.

    Args:
        backbone: The backbone, idle: no open ranker has merged an adapter into it.
        adapters: The adapters that will be used. Others are not compared with PyTorch.

    Attributes:
        name: Name of the engine for messages and reports.
        max_tokens: Maximum number of tokens of a sequence.
    """

    name: str
    max_tokens: int
    #: What to do if a prompt is longer than `max_tokens`.
    room_hint: ClassVar[str]

    def __init__(self, backbone: Backbone, adapters: Sequence[Adapter]) -> None:
        self._backbone_id = backbone.id
        self._check_examples: dict[str, tuple[PromptBuilder, Example]] = {}
        for readout in READOUTS:
            with suppress(LorarecError):  # some tokenizers have no tokens for yes and no
                builder = backbone.prompt_builder(PromptConfig().with_readout(readout))
                self._check_examples[readout] = builder, builder.example(CHECK_HISTORY, CHECK_CANDIDATES)
        self._expected: dict[tuple[str | None, str], np.ndarray] = {}
        if next(backbone.model.parameters()).device.type != "meta":
            self._expected = _torch_scores(backbone, adapters, self._check_examples)
        self._scored_alone: dict[str, np.ndarray] = {}
        self._checked: set[tuple[str, str]] = set()

    def score(
        self,
        examples: Sequence[Example],
        builder: PromptBuilder,
        adapters: Sequence[Adapter | None],
        progress: bool = False,
    ) -> list[np.ndarray]:
        """Score the candidates of many prompts.

        Args:
            examples: The prompts with their candidates as branches.
            builder: The builder of the prompts.
            adapters: The adapter of each example, None for the backbone alone; different adapters share batches.
            progress: Whether to show the progress on standard error.

        Returns:
            One (candidates,) float32 array per example: log-odds (`verdict`) or log-probabilities (`likelihood`).

        Raises:
            LorarecError: A prompt is too long for the engine, the engine refuses or ignores an adapter, or its scores
                are not those of PyTorch.
        """
        self._require_room(max((len(each.prompt) + max(map(len, each.branches)) for each in examples), default=0) + 1)
        self._check(adapters, builder.readout)
        results: list[np.ndarray] = []
        for group in track(list(_groups(len(examples))), "Scoring", progress):
            results += self._score(examples[group], builder, adapters[group])
        return results

    def generate(
        self,
        examples: Sequence[Example],
        builder: PromptBuilder,
        adapters: Sequence[Adapter | None],
        count: int = 5,
        constrained: bool = False,
        progress: bool = False,
    ) -> list[list[int | None]]:
        """Generate a list of titles for every example greedily; see `lorarec.ranking.generate_titles`.

        All lists of a group grow together, by a title at a time, or by a token at a time if they are constrained.

        Args:
            examples: The prompts with their candidates.
            builder: What built the examples.
            adapters: The adapter of each example, None for the backbone alone.
            count: The number of titles in a list.
            constrained: Whether only candidates that are not listed yet can be generated.
            progress: Whether to show the progress.

        Returns:
            For every title of every list the index of the candidate that it equals, or None.

        Raises:
            LorarecError: As for `score`, or the builder's readout is not `likelihood`.
        """
        self._check(adapters, builder.readout)
        results: list[list[int | None]] = []
        for group in track(list(_groups(len(examples))), "Generating", progress):
            lists = [TitleList(builder, example, count, constrained) for example in examples[group]]
            self._require_room(max(len(each.ids) + each.remaining for each in lists))
            while unfinished := [i for i, each in enumerate(lists) if not each.done]:
                tokens = self._extend([lists[i] for i in unfinished], [adapters[group][i] for i in unfinished])
                for i, new in zip(unfinished, tokens, strict=True):
                    for token in new:
                        lists[i].add(token)
            results += [each.listed for each in lists]
        return results

    @abstractmethod
    def _score(
        self, examples: Sequence[Example], builder: PromptBuilder, adapters: Sequence[Adapter | None]
    ) -> list[np.ndarray]:
        """Score a group of examples; see `score`."""

    @abstractmethod
    def _extend(self, lists: Sequence[TitleList], adapters: Sequence[Adapter | None]) -> list[Sequence[int]]:
        """Return the token ids by which each list grows: one allowed token, or all tokens up to the title's end."""

    @abstractmethod
    def close(self) -> None:
        """Release what the engine holds."""

    def _require_room(self, tokens: int) -> None:
        if tokens > self.max_tokens:
            raise LorarecError(
                f"a prompt with its answer needs {tokens} tokens, but {self.name} was started for {self.max_tokens}: "
                f"{self.room_hint}"
            )

    def _check(self, adapters: Sequence[Adapter | None], readout: str) -> None:
        """Check that the engine scores the fixed prompt as it should, once for each adapter and readout."""
        used = {id(adapter): adapter for adapter in adapters if adapter is not None}.values()
        for adapter in used:
            if adapter.folder is None:
                raise LorarecError(f"{self.name} reads adapters from folders: save this one first")
        if readout not in self._scored_alone:
            self._scored_alone[readout] = self._score_check(None, readout)
            self._compare(None, readout, self._scored_alone[readout], TOLERANCE)
        for adapter in used:
            key = adapter.fingerprint, readout
            if key in self._checked:
                continue
            found, alone = self._score_check(adapter, readout), self._scored_alone[readout]
            if not adapter.is_zero and np.abs(found - alone).max() < SMALLEST_CHANGE:
                raise LorarecError(
                    f"{self.name} ignores adapter {adapter.folder}: the scores of a fixed prompt are those of "
                    f"{self._backbone_id} alone; update it, or let it load a folder of `lorarec export` with the "
                    "adapter merged in"
                )
            expected = self._expected.get((None, readout))
            in_float32 = expected is not None and np.abs(alone - expected).max() < FLOAT32_TOLERANCE / 4
            self._compare(adapter, readout, found, FLOAT32_TOLERANCE if in_float32 else TOLERANCE)
            self._checked.add(key)

    def _score_check(self, adapter: Adapter | None, readout: str) -> np.ndarray:
        """Score the fixed prompt twice, so that prompts with and without an adapter are alike in the engine's cache."""
        builder, example = self._check_examples[readout]
        self._score([example], builder, [adapter])
        scores = self._score([example], builder, [adapter])[0]
        if not np.isfinite(scores).all():
            raise LorarecError(f"{self.name} gives scores that are not finite: {scores.tolist()}")
        return scores

    def _compare(self, adapter: Adapter | None, readout: str, found: np.ndarray, tolerance: float) -> None:
        expected = self._expected.get((_fingerprint(adapter), readout))
        if expected is None:
            return
        difference = float(np.abs(found - expected).max())
        if difference > tolerance:
            model = f"{self._backbone_id} alone" if adapter is None else f"adapter {adapter.folder}"
            raise LorarecError(
                f"{self.name} does not score as PyTorch does: with {model} the scores of a fixed prompt differ by "
                f"{difference:.2g}, more than {tolerance:g}; make sure that it runs this model, unquantized"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _torch_scores(
    backbone: Backbone, adapters: Sequence[Adapter], examples: dict[str, tuple[PromptBuilder, Example]]
) -> dict[tuple[str | None, str], np.ndarray]:
    """Return PyTorch's scores of the examples by fingerprint of the adapter, None for the backbone alone, and readout.

    An adapter in memory has no fingerprint; engines refuse it when it is used.
    """
    scores: dict[tuple[str | None, str], np.ndarray] = {}
    for adapter in (None, *(each for each in adapters if each.folder is not None)):
        fingerprint = _fingerprint(adapter)
        with ExitStack() as stack:
            if adapter is not None:
                stack.callback(merge(backbone.model, adapter).unmerge)
            for readout, (builder, example) in examples.items():
                scores[fingerprint, readout] = score(backbone.model, [example], builder)[0]
    return scores


def for_each_adapter(adapters: Sequence[Adapter | None], function: Callable[[Adapter | None], _T]) -> list[_T]:
    """Return the value of a function for the adapter of each example; it is called once for each adapter.

    Finding out what an engine calls an adapter reads the adapter's files.
    """
    found = {number: function(adapter) for number, adapter in {id(each): each for each in adapters}.items()}
    return [found[id(adapter)] for adapter in adapters]


def _fingerprint(adapter: Adapter | None) -> str | None:
    return None if adapter is None else adapter.fingerprint


def _groups(count: int) -> Iterator[slice]:
    for start in range(0, count, GROUP_SIZE):
        yield slice(start, min(start + GROUP_SIZE, count))
