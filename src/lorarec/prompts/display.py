"""Prompts for display: their text and tokens, with control tokens marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from lorarec.prompts.builder import PromptBuilder


@dataclass(frozen=True)
class PromptToken:
    """A token of a prompt.

    Attributes:
        id: Token id.
        token: Token as the vocabulary writes it; byte-level vocabularies write bytes as letters, and a space as `Ġ`.
        control: Whether it is a control token, which only templates write.
    """

    id: int
    token: str
    control: bool


def show_tokens(builder: PromptBuilder, ids: Sequence[int]) -> list[PromptToken]:
    """Return the tokens of ids that a builder made."""
    words = builder.tokenizer.convert_ids_to_tokens(list(ids))
    control = builder.encoder.control
    return [PromptToken(token, str(word), token in control) for token, word in zip(ids, words, strict=True)]


def show_text(builder: PromptBuilder, ids: Sequence[int]) -> list[tuple[str, bool]]:
    """Return the text of ids that a builder made, in parts, each with whether it consists of control tokens."""
    parts, end, displayed = [], 0, ""
    for control, run in groupby(ids, lambda token: token in builder.encoder.control):
        end += len(list(run))
        # Decoding depends on the tokens before, so each part is decoded with all of them and cut off.
        text = builder.tokenizer.decode(list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        parts.append((str(text)[len(displayed) :], control))
        displayed = str(text)
    return parts
