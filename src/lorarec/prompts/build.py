"""From titles to token ids: one prompt and its candidate branches."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from lorarec.errors import LorarecError
from lorarec.prompts.template import Template, TemplateText

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One prompt and its candidate branches as token ids.

    Attributes:
        prompt: ids of the shared prompt.
        branches: ids of each candidate's branch: the title and what the template puts after it. `likelihood` reads
            the probabilities of all of a branch's tokens, `verdict` the prediction after its last token.
    """

    prompt: list[int]
    branches: list[list[int]]

    @property
    def length(self) -> int:
        """Tokens of the prompt and all branches."""
        return len(self.prompt) + sum(map(len, self.branches))


class PromptBuilder:
    """Builds `Example`s with one tokenizer and one template.

    Args:
        tokenizer: a Hugging Face tokenizer; its chat template is used when it has one.
        readout: `verdict` (the prompt holds the history) or `likelihood` (and the candidate list).
        template: a Jinja2 file, or the name of a bundled one, in place of the readout's own.
        max_tokens: the longest prompt plus branch; the oldest history is dropped first to fit.
        max_title_tokens: titles are cut to this many tokens.

    Raises:
        LorarecError: unknown readout or unusable template.
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
        self.max_tokens = max_tokens
        self.max_title_tokens = max_title_tokens
        self.dropped = 0
        bos = [] if chat else [i for i in tokenizer("").input_ids if i == tokenizer.bos_token_id]
        self._bos = bos
        self.tokens = lru_cache(maxsize=1 << 20)(self._tokenise)
        self.yes_no = self._answer_ids()

    def _tokenise(self, text: str, limit: int | None = None) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids[:limit])

    def _answer_ids(self) -> tuple[int, int]:
        after_word = not self.template.pieces(0, 0).suffix[-1].isspace()
        lead = " " if after_word and self.template.chat is None else ""
        words = ("Yes", "No") if self.template.chat else ("yes", "no")
        yes, no = (self.tokens(lead + word)[0] for word in words)
        if yes == no:
            raise LorarecError("this tokenizer gives yes and no the same first token, so verdicts cannot be read")
        return yes, no

    def _branch(self, title: str, lead: str, suffix: str) -> list[int]:
        return [*self.tokens(lead + title, self.max_title_tokens), *self.tokens(suffix)]

    def example(
        self,
        history: Sequence[str],
        candidates: Sequence[str],
        stars: Sequence[str] = (),
        profile: str = "",
        notes: Sequence[str] = (),
    ) -> Example:
        """Build one example.

        Args:
            history: titles in time order, oldest first.
            candidates: titles to score, at least one.
            stars: what the user gave each title of the history, in words; nothing is said without.
            profile: what is known of the user, in words.
            notes: what is known of each candidate besides its title, in words; empty where there is nothing to say.

        Raises:
            LorarecError: no candidates, an empty title, or a prompt beyond `max_tokens` with no history at all.
        """
        if not candidates:
            raise LorarecError("a prompt needs at least one candidate title")
        if not all(candidates) or not all(history):
            raise LorarecError("an empty title in a prompt: give every item a title")
        kept, given = list(history), tuple(stars)
        while True:
            prompt, branches = self._assemble(kept, candidates, given, profile, tuple(notes))
            over = len(prompt) + max(map(len, branches)) - self.max_tokens
            if over <= 0:
                return Example(prompt, branches)
            if not kept:
                raise LorarecError(
                    f"the candidates alone need {over + self.max_tokens} tokens, more than the limit of "
                    f"{self.max_tokens}: use fewer candidates, shorter titles or readout=verdict"
                )
            # At least one title goes each round; how many follows from what the dropped lines are worth.
            drop = 0
            while over > 0 and drop < len(kept):
                over -= len(self.tokens(" " + kept[drop], self.max_title_tokens)) + 2
                drop += 1
            kept, given = kept[drop:], given[drop:]
            self.dropped += drop

    def _assemble(
        self,
        history: Sequence[str],
        candidates: Sequence[str],
        stars: tuple[str, ...],
        profile: str,
        notes: tuple[str, ...],
    ) -> tuple[list[int], list[list[int]]]:
        listed = candidates if self.readout == "likelihood" else ()
        # Where the prompt lists the candidates, notes stand there: a branch is then what the model would write.
        in_list, in_branch = (notes, ()) if listed else ((), notes)
        pieces = self.template.pieces(len(history), len(listed), stars, profile, in_list, "", bool(notes))
        titles = {"h": history, "c": listed}
        prompt = list(self._bos)
        lead = ""
        for piece in pieces.prompt:
            if isinstance(piece, str):
                # A space before a title belongs to the title's first token in byte-pair vocabularies.
                lead = " " if piece.endswith(" ") else ""
                prompt += self.tokens(piece.removesuffix(" "))
            else:
                role, index = piece
                prompt += self.tokens(lead + titles[role][index], self.max_title_tokens)
        suffixes = [self.template.pieces(0, 0, note=note).suffix for note in in_branch or [""] * len(candidates)]
        return prompt, [self._branch(title, lead, suffix) for title, suffix in zip(candidates, suffixes, strict=True)]

    def from_text(self, prompt: str, candidates: Sequence[str]) -> Example:
        """Build an example from a prompt written out in full, up to where the candidate's title begins.

        Raises:
            LorarecError: no candidates, or the prompt and its longest branch exceed `max_tokens`.
        """
        if not candidates:
            raise LorarecError("a prompt needs at least one candidate title")
        suffix = self.template.pieces(0, 0).suffix
        lead = " " if prompt.endswith(" ") else ""
        ids = [*self._bos, *self.tokenizer(prompt.removesuffix(" "), add_special_tokens=False).input_ids]
        branches = [self._branch(title, lead, suffix) for title in candidates]
        if len(ids) + max(map(len, branches)) > self.max_tokens:
            raise LorarecError(f"a prompt of {len(ids)} tokens exceeds the limit of {self.max_tokens}: shorten it")
        return Example(ids, branches)
