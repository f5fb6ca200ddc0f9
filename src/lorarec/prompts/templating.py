"""Templates of prompts, which are Jinja2 files.

The variables of a template are `history` and `candidates` (titles, oldest first), `candidate` (the title that is
scored), `stars` (a text for each title of the history), `profile` (a text about the user), `hint` (a text about the
candidate), `hints` (one for each of `candidates`) and `evidence` (whether there are hints); what is unknown is empty.
A template is rendered with placeholders for titles into pieces: the template's own text, titles, and other text that
its expressions write. Only the template's own text can contain control tokens. Pieces are encoded one by one, so a
title has the same token ids wherever it is, and is encoded only once.
"""

import re
import secrets
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from jinja2.runtime import Context
from transformers import PreTrainedTokenizerBase

from lorarec.errors import LorarecError
from lorarec.prompts.chat import chat_frame
from lorarec.prompts.config import READOUTS, TemplateText
from lorarec.prompts.sandbox import SOURCE_LIMIT, LimitedTemplate

#: The bundled template for clicks: profile, history with stars, one title; used with the readout `verdict`.
CLICK = "click"
#: The bundled template that asks a chat model why a title is recommended; the model generates the answer.
REASON = "reason"
#: The latest version of each bundled template that adapters are trained with. The text of a version never changes,
#: since an adapter must be prompted as it was in training.
LATEST = {"verdict": "verdict-v2", "likelihood": "likelihood-v2", CLICK: "click-v1"}
#: All versions of the bundled templates.
VERSIONED = ("verdict-v1", "verdict-v2", "likelihood-v1", "likelihood-v2", "click-v1")
BUNDLED = (*LATEST, *VERSIONED, REASON)
#: Former versions -> versions that give the same prompts wherever there is no evidence.
SAME_WITHOUT_EVIDENCE = {"verdict-v1": "verdict-v2", "likelihood-v1": "likelihood-v2"}

#: Part of the placeholders. It is drawn in every process, so that no text of a dataset can contain it, and has letters
#: of both cases, so that filters which change the case of a title are noticed.
_SECRET = f"Mark{secrets.randbits(64)}"
_MARK = re.compile(rf"\x00{_SECRET}:([hcxt])(\d+)\x00")
_BROKEN_MARK = re.compile(f"{_SECRET}|{_SECRET[::-1]}", re.IGNORECASE)
_HISTORY, _CANDIDATE, _SCORED, _TEXT = "h", "c", "x", "t"


class Literal(NamedTuple):
    """Text of the template itself, in which control tokens are recognised."""

    text: str


class Plain(NamedTuple):
    """Text from data, such as a hint, which never becomes a control token."""

    text: str


class Title(NamedTuple):
    """The position of a title: `h` in the history or `c` in the list of candidates, and its index."""

    role: str
    number: int


Piece = Literal | Plain | Title


@dataclass(frozen=True)
class Pieces:
    """A rendered template.

    Attributes:
        prompt: Pieces before the scored candidate.
        suffix: Pieces after it, at least the end of its line.
        answer: Text between the suffix and the answer: a space if a chat template writes one, or nothing.
    """

    prompt: tuple[Piece, ...]
    suffix: tuple[Literal | Plain, ...]
    answer: str = ""


def read_template(template: str | Path | TemplateText) -> str | TemplateText:
    """Read the template that an option names.

    Args:
        template: Path of a Jinja2 file, name of a bundled template, or a text, which is returned as it is.

    Returns:
        The text of a file, or the versioned name of a bundled template.

    Raises:
        LorarecError: If the file is missing, unreadable, not UTF-8 text, or too long.
    """
    if isinstance(template, TemplateText):
        return template
    if str(template) in BUNDLED:
        return LATEST.get(str(template), str(template))
    try:
        with open(template, encoding="utf-8-sig") as stream:
            text = stream.read(SOURCE_LIMIT + 1)
    except OSError as error:
        raise LorarecError(f"template {template} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise LorarecError(f"template {template} cannot be read: it is not UTF-8 text") from error
    return TemplateText(str(template), text)


class Template:
    """A template for one readout.

    Args:
        readout: `verdict` or `likelihood` (see `lorarec.scoring`).
        path: A Jinja2 file, its text, or the name of a bundled template; None for the latest template of the readout. A
            template may use only a few constructs (see `lorarec.prompts.sandbox`).
        chat: A tokenizer whose chat template wraps the text as a user's message; None for plain text.

    Raises:
        LorarecError: The readout is unknown, the file is missing or not valid Jinja2, it does not contain `candidate`
            exactly once and after all other titles, or the chat template cannot be used.
    """

    def __init__(
        self, readout: str, path: str | Path | TemplateText | None = None, chat: PreTrainedTokenizerBase | None = None
    ) -> None:
        if readout not in READOUTS:
            raise LorarecError(f"unknown readout {readout!r}: choose one of {', '.join(READOUTS)}")
        self.readout = readout
        template = read_template(path or readout)
        self.name = template.name if isinstance(template, TemplateText) else template
        self.chat = chat
        self._frame = None if chat is None else chat_frame(chat)
        bundled = resources.files("lorarec.prompts") / "templates" / f"{self.name}.j2"
        self.source = template.text if isinstance(template, TemplateText) else bundled.read_text(encoding="utf-8")
        self._template = LimitedTemplate(self.name, self.source, finalize=_mark_text)
        self.pieces = lru_cache(maxsize=512)(self._pieces)

    def _pieces(
        self,
        history: int,
        candidates: int,
        stars: tuple[str, ...] = (),
        profile: str = "",
        hints: tuple[str, ...] = (),
        hint: str = "",
        evidence: bool = False,
    ) -> Pieces:
        texts: list[str] = []
        text = self._template.render(
            history=[_UnknownTitle(_HISTORY, i) for i in range(history)],
            candidates=[_UnknownTitle(_CANDIDATE, i) for i in range(candidates)],
            candidate=_UnknownTitle(_SCORED, 0),
            stars=stars,
            profile=profile,
            hints=hints,
            hint=hint,
            notes=hints,  # names of the two in templates that were written for version 0.1
            note=hint,
            evidence=evidence,
            _texts=texts,
        )
        before, *after = text.split(_mark(_SCORED, 0))
        if len(after) != 1:
            raise LorarecError(f"template {self.name} must contain {{{{ candidate }}}} exactly once")
        if _BROKEN_MARK.search("".join([*texts, *_MARK.split(text)[::3]])):
            raise LorarecError(f"template {self.name} changes a title: write titles without filters")
        return self._framed(_split_at_marks(before, texts), _split_at_marks(after[0], texts))

    def written_out(self, prompt: str) -> Pieces:
        """Return the pieces of a prompt that is given as text, up to the beginning of the candidate's title."""
        if self._frame is None:
            return _pieces([Plain(prompt)], [*self.pieces(0, 0).suffix])
        question = prompt.rstrip().removesuffix("-").rstrip() if self.readout == "likelihood" else prompt
        return self._framed([Plain(question)], [])

    def _framed(self, before: list[Piece], after: list[Piece]) -> Pieces:
        """Put pieces into the chat template; the candidate is in the user's message or, in `likelihood`, the answer."""
        if any(isinstance(piece, Title) for piece in after):
            raise LorarecError(f"template {self.name} holds a title after {{{{ candidate }}}}: put it before")
        if self._frame is None:
            return _pieces(before, after)
        opening, closing = self._frame
        if self.readout == "likelihood":
            question = _stripped(_stripped(before, " \t\r\n"), "-", once=True)
            return _pieces([Literal(opening), *_stripped(question, " \t\r\n"), Literal(closing)], [])
        answer = " " if closing.endswith(" ") else ""
        message = [Literal(opening), *before]
        return _pieces(message, [*_stripped(after, "\n"), Literal(closing.removesuffix(" "))], answer)


class _UnknownTitle:
    """A placeholder for a title; a template can write and join it, but it has no items or length."""

    def __init__(self, role: str, number: int) -> None:
        self._text = _mark(role, number)

    def __str__(self) -> str:
        return self._text


@jinja2.pass_context
def _mark_text(context: Context, value: Any) -> Any:
    """Replace the text that an expression writes by a placeholder, which separates it from the template's own text.

    Numbers are unchanged. Lists are refused, since they could contain text from data.
    """
    if value is None or isinstance(value, int | float | jinja2.Undefined):
        return value
    if not isinstance(value, str | _UnknownTitle):
        raise TypeError(f"an expression gives a {type(value).__name__}: write each of its items")
    parts = _MARK.split(str(value))
    marked = []
    for text, role, number in zip(parts[::3], [*parts[1::3], ""], [*parts[2::3], ""], strict=True):
        if text:
            context["_texts"].append(text)
            marked.append(_mark(_TEXT, len(context["_texts"]) - 1))
        marked.append(_mark(role, int(number)) if role else "")
    return "".join(marked)


def _mark(role: str, number: int) -> str:
    return f"\x00{_SECRET}:{role}{number}\x00"


def _split_at_marks(rendered: str, texts: list[str]) -> list[Piece]:
    """Return the pieces of rendered text."""
    parts = _MARK.split(rendered)
    pieces: list[Piece] = []
    for text, role, number in zip(parts[::3], [*parts[1::3], ""], [*parts[2::3], ""], strict=True):
        if text:
            pieces.append(Literal(text))
        if role:
            pieces.append(Plain(texts[int(number)]) if role == _TEXT else Title(role, int(number)))
    return pieces


def _stripped(pieces: list[Piece], characters: str, once: bool = False) -> list[Piece]:
    """Return the pieces without these characters at their end, if the template itself wrote them."""
    if not pieces or not isinstance(pieces[-1], Literal):
        return pieces
    text = pieces[-1].text
    text = text.removesuffix(characters) if once else text.rstrip(characters)
    return [*pieces[:-1], Literal(text)] if text else pieces[:-1]


def _pieces(before: list[Piece], after: list[Piece], answer: str = "") -> Pieces:
    """Join neighbouring literals; an empty suffix becomes the end of the candidate's line."""
    ends = [piece for piece in _joined(after) if not isinstance(piece, Title)]
    return Pieces(tuple(_joined(before)), tuple(ends) or (Literal("\n"),), answer)


def _joined(pieces: list[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for piece in pieces:
        if joined and isinstance(piece, Literal) and isinstance(joined[-1], Literal):
            joined[-1] = Literal(joined[-1].text + piece.text)
        elif not isinstance(piece, Literal) or piece.text:
            joined.append(piece)
    return joined
