"""Prompts and their candidates as token ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from lorarec.errors import LorarecError
from lorarec.prompts.chat import name_of
from lorarec.prompts.config import TemplateText
from lorarec.prompts.encode import Place, TextEncoder
from lorarec.prompts.templating import REASON, Literal, Piece, Plain, Template, Title
from lorarec.prompts.token_cache import TokenCache

#: The value of `PromptBuilder.yes_no` for prompts that are not answered by yes or no.
NO_ANSWERS = (-1, -1)
#: Approximate maximum of the memory of encoded titles and other texts from data in bytes; a title takes about 500.
MAX_CACHE_BYTES = 1 << 25


@dataclass(frozen=True)
class Example:
    """A prompt and its candidates as token ids.

    Attributes:
        prompt: Token ids of the prompt that all candidates share.
        branches: Token ids of each candidate: its title and what the template writes after it. `likelihood` reads the
            probabilities of all tokens of a branch, `verdict` the prediction after its last token.
    """

    prompt: list[int]
    branches: list[list[int]]

    @property
    def length(self) -> int:
        """Number of tokens of the prompt and all branches."""
        return len(self.prompt) + sum(map(len, self.branches))


class _End(NamedTuple):
    """The end of a prompt: the position of what follows, and a space that belongs to its first token."""

    place: Place = "start"
    lead: str = ""


class PromptBuilder:
    """Builds examples with a tokenizer and a template.

    Titles, hints and other text from data are encoded as plain text; only the template and the chat template can write
    control tokens (see `lorarec.prompts.encode`).

    Args:
        tokenizer: A Hugging Face tokenizer; its chat template is used if it has one.
        readout: `verdict` (the prompt contains the history) or `likelihood` (the history and the list of candidates).
        template: A Jinja2 file or the name of a bundled template; None for the latest template of the readout.
        max_tokens: Maximum number of tokens of a prompt with its longest branch; the oldest items are dropped first.
        max_title_tokens: Maximum number of tokens of a title.

    Attributes:
        yes_no: Token ids of the two answers of `verdict`; `NO_ANSWERS` in `likelihood` and for the template `reason`.
        dropped: Number of titles that were dropped from histories so far because of `max_tokens`.

    Raises:
        LorarecError: The readout is unknown, the template or chat template cannot be used, or the readout is `verdict`
            and the tokenizer does not encode yes and no as one token each.

    Examples:
        >>> from lorarec import Backbone
        >>> from lorarec.prompts import PromptBuilder
        >>> builder = PromptBuilder(Backbone.from_pretrained("embedded").tokenizer)
        >>> example = builder.example(["Toy Story", "Antz"], ["A Bug's Life", "Heat"])
        >>> builder.tokenizer.decode(example.branches[1])
        ' heat\\n'
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        readout: str = "verdict",
        template: str | Path | TemplateText | None = None,
        max_tokens: int = 1024,
        max_title_tokens: int = 32,
    ) -> None:
        chat = tokenizer if getattr(tokenizer, "chat_template", None) else None
        self.tokenizer = tokenizer
        self.readout = readout
        self.template = Template(readout, template, chat)
        self.encoder = TextEncoder(tokenizer)
        self.max_tokens = max_tokens
        self.max_title_tokens = max_title_tokens
        self.dropped = 0
        self._bos = [] if chat else [i for i in tokenizer("").input_ids if i == tokenizer.bos_token_id]
        self._written = lru_cache(maxsize=1 << 16)(self._encode_written)
        self._given = TokenCache(self._encode_given, MAX_CACHE_BYTES)
        answered = readout == "verdict" and self.template.name != REASON
        self.yes_no = self._answer_ids() if answered else NO_ANSWERS

    def _encode_written(self, text: str, place: Place) -> tuple[int, ...]:
        return tuple(self.encoder.template(text, place))

    def _encode_given(self, text: str, place: Place, limit: int | None = None, line_end: str = "") -> tuple[int, ...]:
        """Encode text from data, truncated to `limit` tokens, with the end of its line.

        Some vocabularies have tokens of punctuation and a line break, so the two are encoded together.
        """
        ids = self.encoder.plain(text, place)
        if limit is not None and len(ids) > limit:
            return (*ids[:limit], *self.encoder.plain(line_end, "inside"))
        return tuple(self.encoder.plain(text + line_end, place) if line_end else ids)

    def title(self, title: str) -> tuple[int, ...]:
        """Return the token ids of a title after other text and a space."""
        return self._given(f" {title}", "inside", self.max_title_tokens)

    def text(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a template's text after other text."""
        return self._written(text, "inside")

    def _answer_ids(self) -> tuple[int, int]:
        """Return the ids of the first usual pair of answers that are one token each at the end of the prompt."""
        pieces = self.template.pieces(0, 0)
        _, (place, _) = self._encode(pieces.suffix, _End("inside"), last=True)
        chat = self.template.chat is not None
        lead = pieces.answer if chat or pieces.suffix[-1].text[-1].isspace() else " "
        for space in (lead, "" if lead else " "):
            for words in (("Yes", "No"), ("yes", "no")) if chat else (("yes", "no"), ("Yes", "No")):
                yes, no = (self._given(space + word, place) for word in words)
                if len(yes) == len(no) == 1 and yes != no and self.tokenizer.unk_token_id not in (*yes, *no):
                    return yes[0], no[0]
        encoded = [self.tokenizer.convert_ids_to_tokens([*self._given(lead + word, place)]) for word in ("yes", "no")]
        yes_tokens, no_tokens = ("+".join(map(str, tokens)) or "nothing" for tokens in encoded)
        raise LorarecError(
            f"the readout verdict needs yes and no as a token each, but {name_of(self.tokenizer)} makes {yes_tokens} "
            f"and {no_tokens} of them: use the readout likelihood"
        )

    def _encode(
        self, pieces: Sequence[Piece], end: _End, titles: Mapping[str, Sequence[str]] | None = None, last: bool = False
    ) -> tuple[list[int], _End]:
        """Encode pieces that follow others.

        Args:
            pieces: The pieces.
            end: The end of the pieces before them.
            titles: The texts of `Title` pieces, by role.
            last: Whether nothing follows, so that a space at the end does not belong to a title.

        Returns:
            The token ids, and the end of the pieces.
        """
        ids: list[int] = []
        place, lead = end
        line_end = ""
        for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
            if isinstance(piece, Title):
                text, limit = (titles or {})[piece.role][piece.number], self.max_title_tokens
            else:
                text, limit = piece.text.removeprefix(line_end), None
            text, line_end = lead + text, ""
            # In most vocabularies a space before a word is part of the word's token.
            lead = " " if _leads(piece, following, last) and text.endswith(" ") else ""
            text = text.removesuffix(lead)
            if isinstance(piece, Literal):
                ids += self._written(text, place) if text else ()
                place = self.encoder.after(text, place)
            else:
                line_end = _line_end(text, following)
                ids += self._given(text, place, limit, line_end)
                place = "inside"
        return ids, _End(place, lead)

    def _branch(self, title: str, end: _End, suffix: tuple[Literal | Plain, ...]) -> list[int]:
        pieces: list[Piece] = [Title("x", 0), *suffix]
        return self._encode(pieces, end, {"x": [title]}, last=True)[0]

    def example(
        self,
        history: Sequence[str],
        candidates: Sequence[str],
        stars: Sequence[str] = (),
        profile: str = "",
        hints: Sequence[str] = (),
    ) -> Example:
        """Build an example.

        Args:
            history: Titles in time order, oldest first.
            candidates: Titles to score, at least one.
            stars: Text after each title of the history, such as the user's rating; empty for none.
            profile: Text about the user.
            hints: Text after the title of each candidate, such as a word of `Cooccurrence`; empty for none.

        Raises:
            LorarecError: There are no candidates, a title is empty, or the prompt exceeds `max_tokens` even without a
                history.
        """
        if not candidates:
            raise LorarecError("a prompt needs at least one candidate title")
        if not all(candidates) or not all(history):
            raise LorarecError("an empty title in a prompt: give every item a title")
        remaining, given = list(history), tuple(stars)
        while True:
            prompt, branches = self._assemble(remaining, candidates, given, profile, tuple(hints))
            over = len(prompt) + max(map(len, branches)) - self.max_tokens
            if over <= 0:
                return Example(prompt, branches)
            if not remaining:
                raise LorarecError(
                    f"the candidates alone need {over + self.max_tokens} tokens, more than the limit of "
                    f"{self.max_tokens}: use fewer candidates, shorter titles or readout=verdict"
                )
            # Each round drops at least one title, and as many as make up for the excess.
            drop = 0
            while over > 0 and drop < len(remaining):
                over -= len(self.title(remaining[drop])) + 2
                drop += 1
            remaining, given = remaining[drop:], given[drop:]
            self.dropped += drop

    def _assemble(
        self,
        history: Sequence[str],
        candidates: Sequence[str],
        stars: tuple[str, ...],
        profile: str,
        hints: tuple[str, ...],
    ) -> tuple[list[int], list[list[int]]]:
        listed = candidates if self.readout == "likelihood" else ()
        # If the prompt lists the candidates, hints are in the list, so that a branch is what the model would write.
        in_list, in_branch = (hints, ()) if listed else ((), hints)
        pieces = self.template.pieces(len(history), len(listed), stars, profile, in_list, "", bool(hints))
        prompt, end = self._encode(pieces.prompt, _End(), {"h": history, "c": listed})
        suffixes = [self.template.pieces(0, 0, hint=hint).suffix for hint in in_branch or [""] * len(candidates)]
        branches = [self._branch(title, end, suffix) for title, suffix in zip(candidates, suffixes, strict=True)]
        return [*self._bos, *prompt], branches

    def from_text(self, prompt: str, candidates: Sequence[str]) -> Example:
        """Build an example from the text of a prompt, up to the beginning of the candidate's title.

        The text is encoded as plain text, as titles are; with a chat template it is the user's message.

        Raises:
            LorarecError: There are no candidates, or the prompt and its longest branch exceed `max_tokens`.
        """
        if not candidates:
            raise LorarecError("a prompt needs at least one candidate title")
        pieces = self.template.written_out(prompt)
        text, end = self._encode(pieces.prompt, _End())
        ids = [*self._bos, *text]
        branches = [self._branch(title, end, pieces.suffix) for title in candidates]
        if len(ids) + max(map(len, branches)) > self.max_tokens:
            raise LorarecError(f"a prompt of {len(ids)} tokens exceeds the limit of {self.max_tokens}: shorten it")
        return Example(ids, branches)


def _leads(piece: Piece, following: Piece | None, last: bool) -> bool:
    """Return whether a space at the end of a piece is before text from data."""
    return not isinstance(piece, Title) and (not last if following is None else not isinstance(following, Literal))


def _line_end(text: str, following: Piece | None) -> str:
    """Return the line break that a template writes after text from data, or nothing if there are several."""
    if not isinstance(following, Literal) or not following.text.startswith("\n") or text[-1:].isspace():
        return ""
    return "" if following.text[1:2].isspace() else "\n"
