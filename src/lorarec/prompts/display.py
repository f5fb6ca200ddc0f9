"""A prompt as people read it: its text, and its tokens with the control tokens marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from lorarec.prompts.builder import PromptBuilder


@dataclass(frozen=True)
class ShownToken:
    """A token of a prompt.

    Attributes:
        token: as the vocabulary writes it; byte-level vocabularies write bytes as letters, a space as `Ġ`.
        control: whether it is a control token, which only templates write.
    """

    id: int
    token: str
    control: bool


def show_tokens(builder: PromptBuilder, ids: Sequence[int]) -> list[ShownToken]:
    """The tokens behind ids that a builder made."""
    words = builder.tokenizer.convert_ids_to_tokens(list(ids))
    control = builder.encoder.control
    return [ShownToken(token, str(word), token in control) for token, word in zip(ids, words, strict=True)]


def show_text(builder: PromptBuilder, ids: Sequence[int]) -> list[tuple[str, bool]]:
    """The text behind ids that a builder made, in parts, each with whether it is of control tokens."""
    parts, end, shown = [], 0, ""
    for control, run in groupby(ids, lambda token: token in builder.encoder.control):
        end += len(list(run))
        # What a tokenizer decodes depends on what stands before, so the beginning is decoded again and taken off.
        text = builder.tokenizer.decode(list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        parts.append((str(text)[len(shown) :], control))
        shown = str(text)
    return parts
