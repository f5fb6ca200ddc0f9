"""Templates: the words around titles, kept in Jinja2 files apart from code.

A template sees `history` and `candidates` (titles, oldest first), `candidate`, the title being scored, `stars` (a text
for each title of the history), `profile` (a text about the user), `note` (a text about the candidate), `notes` (one for
each of the candidates) and `evidence` (whether notes are given at all); they are empty where nothing is known.
Rendering it with marks in the place of titles yields *pieces*: literal text between titles. Literals and titles are
tokenised apart, so a title has the same token ids wherever it stands, and a title is tokenised once however often it
occurs.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from lorarec.errors import LorarecError
from lorarec.prompts.sandbox import SOURCE_LIMIT, LimitedTemplate

MARK = "\x00"
READOUTS = ("verdict", "likelihood")
#: The bundled template of clicks: profile, history with stars, one title; read as a verdict.
CLICK = "click"
#: The bundled template that asks a chat model why a title is recommended; what comes after it is generated.
REASON = "reason"
BUNDLED = (*READOUTS, CLICK, REASON)


@dataclass(frozen=True)
class Pieces:
    """A rendered template with `(role, index)` slots where titles go.

    Attributes:
        prompt: literal strings and slots before the scored candidate.
        suffix: literal text after it (up to and including the end of its line).
    """

    prompt: tuple[str | tuple[str, int], ...]
    suffix: str


@dataclass(frozen=True)
class TemplateText:
    """A template of one's own that was read already; two with the same text are equal.

    Attributes:
        name: what messages call it.
        text: Jinja2.
    """

    name: str = field(compare=False)
    text: str


def read_template(path: str | Path) -> str | TemplateText:
    """A template as `Template` takes it: a bundled one's name as it is, else the content of the file.

    Raises:
        LorarecError: the file is missing, unreadable, no UTF-8 text, or too long.
    """
    if str(path) in BUNDLED:
        return str(path)
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(SOURCE_LIMIT + 1)
    except OSError as error:
        raise LorarecError(f"template {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise LorarecError(f"template {path} cannot be read: it is not UTF-8 text") from error
    return TemplateText(str(path), text)


class Template:
    """A template for one readout.

    Args:
        readout: `verdict` or `likelihood` (see `lorarec.scoring`).
        path: a Jinja2 file of the user's own, its text, or the name of a bundled template; that of the readout when
            None. What it may hold is limited (see `lorarec.prompts.sandbox`).
        chat: a tokenizer whose chat template wraps the text as one user message, or None for plain text.

    Raises:
        LorarecError: unknown readout, a missing file, bad Jinja2, or a template without `candidate` near its end.
    """

    def __init__(self, readout: str, path: str | Path | TemplateText | None = None, chat: Any = None) -> None:
        if readout not in READOUTS:
            raise LorarecError(f"unknown readout {readout!r}: choose one of {', '.join(READOUTS)}")
        self.readout = readout
        own = path if isinstance(path, TemplateText) else read_template(path or readout)
        self.name = own.name if isinstance(own, TemplateText) else own
        self.chat = chat
        bundled = resources.files("lorarec.prompts") / "templates" / f"{self.name}.j2"
        self.source = own.text if isinstance(own, TemplateText) else bundled.read_text(encoding="utf-8")
        self._template = LimitedTemplate(self.name, self.source)
        self.pieces = lru_cache(maxsize=512)(self._pieces)

    def _pieces(
        self,
        history: int,
        candidates: int,
        stars: tuple[str, ...] = (),
        profile: str = "",
        notes: tuple[str, ...] = (),
        note: str = "",
        evidence: bool = False,
    ) -> Pieces:
        text = self._template.render(
            history=[f"{MARK}h{i}{MARK}" for i in range(history)],
            candidates=[f"{MARK}c{i}{MARK}" for i in range(candidates)],
            candidate=f"{MARK}x0{MARK}",
            stars=stars,
            profile=profile,
            notes=notes,
            note=note,
            evidence=evidence,
        )
        if text.count(f"{MARK}x0{MARK}") != 1:
            raise LorarecError(f"template {self.name} must hold {{{{ candidate }}}} exactly once")
        if self.chat is not None:
            text = self._chat_text(text)
        before, after = text.split(f"{MARK}x0{MARK}")
        slots: list[str | tuple[str, int]] = []
        for position, part in enumerate(before.split(MARK)):
            if position % 2:
                slots.append((part[0], int(part[1:])))
            elif part:
                slots.append(part)
        return Pieces(tuple(slots), after or "\n")

    def _chat_text(self, text: str) -> str:
        """`verdict` asks about a candidate inside the user's message; in `likelihood` the candidate is the answer."""
        if self.readout == "verdict":
            message = [{"role": "user", "content": text.rstrip("\n")}]
            return str(self.chat.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
        question = text.split(f"{MARK}x0{MARK}")[0].rstrip().removesuffix("-").rstrip()
        message = [{"role": "user", "content": question}]
        opened = self.chat.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        return f"{opened}{MARK}x0{MARK}\n"
