"""Evidence: words in prompts that say how likely the interactions of other users make a candidate."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import yaml

from lorarec.data.cooccurrence import NEW, SILENT, new_item_word
from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.options import build_options, convert_options, document_options, option

#: Word in place of an empty one where a prompt has several words about a candidate.
RARELY = "rarely"
SASREC = "sasrec"
#: Maximum values of options, since the record of an adapter may come from anywhere.
_MOST = {"epochs": 1000, "patience": 1000, "batch_size": 65536, "hidden_size": 2048, "max_history": 10_000}


@document_options
@dataclass(frozen=True)
class EvidenceModelConfig:
    """Options of SASRec as a source of words in prompts; see `PromptConfig.evidence_model`.

    An adapter's record has these options, so that the same model is fitted to any dataset that the adapter is used on.

    Raises:
        LorarecError: If a value is of the wrong type or out of range.

    Examples:
        >>> from lorarec import TrainingConfig
        >>> config = TrainingConfig(evidence_model={"epochs": 20, "batch_size": 32})
        >>> config.evidence_model.epochs, config.evidence_model.hidden_size
        (20, 128)
    """

    epochs: int = option(60, "Maximum number of passes over the histories.")
    patience: int = option(3, "Number of epochs without a better validation NDCG@10 after which training stops.")
    batch_size: int = option(128, "Number of histories per step.")
    learning_rate: float = option(2e-3, "Learning rate of Adam.")
    hidden_size: int = option(128, "Size of the item vectors.")
    dropout: float = option(0.5, "Dropout probability in training.")
    max_history: int = option(50, "Number of items of a history that are read, the latest.")
    seed: int = option(42, "Seed of all random numbers.")

    def __post_init__(self) -> None:
        convert_options(self)
        refuse_out_of_range(self, _MOST, ("seed",), ("learning_rate",), ("dropout",))
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise LorarecError(f"option {name} must be at most {most}, got {getattr(self, name)}")


#: Model that a prompt may have words of: SASRec with default options, or with given ones.
EvidenceModel = Literal["sasrec"] | EvidenceModelConfig


def read_evidence_model(value: object) -> EvidenceModelConfig | None:
    """Convert a value of the option `evidence_model`.

    Args:
        value: `sasrec`, a mapping of its options, such a mapping as YAML or JSON text, the converted value, or None.

    Raises:
        LorarecError: If the value is another one, or an option is unknown, of the wrong type or out of range.
    """
    if value is None or isinstance(value, EvidenceModelConfig):
        return value
    if value == SASREC:
        return EvidenceModelConfig()
    options = value
    if isinstance(value, str):
        with suppress(yaml.YAMLError):
            options = yaml.safe_load(value)
    if not isinstance(options, Mapping):
        raise LorarecError(f"option evidence_model must be {SASREC} or a mapping of its options, got {value!r}")
    try:
        return build_options(EvidenceModelConfig, {str(name): each for name, each in options.items()})
    except LorarecError as error:
        raise LorarecError(f"option evidence_model: {error}") from None


class CandidateWords(Protocol):
    """An object that describes candidates by words, from the interactions of other users."""

    def hints(
        self,
        history: Sequence[str],
        candidates: Sequence[str],
        user: str | None = None,
        hidden: Sequence[bool] | None = None,
        max_history: int | None = None,
    ) -> list[str]:
        """Return a hint about each candidate: words, with "new" before them for a new item, or empty text.

        Args:
            history: Item ids, oldest first: the whole history.
            candidates: Item ids.
            user: User of the history.
            hidden: Whether each candidate is called new although it is known, so that there are new items in training.
            max_history: Number of latest items of the history in the prompt, which co-occurrence is counted with; None
                for all. A model reads as many as it was fitted to.
        """
        ...

    def with_titles(self, titles: Mapping[str, str]) -> Self:
        """Return the words of the same interactions for a catalogue with further items or other titles.

        Args:
            titles: The title of each item by its id, in the order of the catalogue.
        """
        ...


class Evidence(CandidateWords, Protocol):
    """The words about candidates that a prompt has, such as `Cooccurrence`; `make_evidence` makes what prompts ask for.

    Attributes:
        model: Options of the model whose words follow those of co-occurrence; None for co-occurrence alone.
    """

    @property
    def model(self) -> EvidenceModelConfig | None: ...


@dataclass(frozen=True)
class JointEvidence:
    """Describe a candidate by the word of co-occurrence and that of a model, as in "often, usually".

    A candidate is called new if it is new to one of them. If only one of them has no word, it says "rarely".

    Attributes:
        cooccurrence: Source of the first word.
        ranks: Source of the second word.
        model: Options of the model that gives the second word.
    """

    cooccurrence: CandidateWords
    ranks: CandidateWords
    model: EvidenceModelConfig

    def hints(
        self,
        history: Sequence[str],
        candidates: Sequence[str],
        user: str | None = None,
        hidden: Sequence[bool] | None = None,
        max_history: int | None = None,
    ) -> list[str]:
        """Return a hint about each candidate; see `Evidence.hints`."""
        sources = (self.cooccurrence, self.ranks)
        pairs = zip(*(each.hints(history, candidates, user, hidden, max_history) for each in sources), strict=True)
        return [_joined(*pair) for pair in pairs]

    def with_titles(self, titles: Mapping[str, str]) -> Self:
        """Return the words for a catalogue with further items or other titles; see `CandidateWords.with_titles`."""
        return replace(self, cooccurrence=self.cooccurrence.with_titles(titles), ranks=self.ranks.with_titles(titles))


def _joined(one: str, other: str) -> str:
    """Return the hint that has the words of two hints."""
    words = [each.removeprefix(NEW).removeprefix(", ") for each in (one, other)]
    joined = ", ".join(word or RARELY for word in words) if any(words) else SILENT
    return new_item_word(joined) if NEW in (one[: len(NEW)], other[: len(NEW)]) else joined
