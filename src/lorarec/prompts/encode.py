"""Encoding of prompts. Only a template can write control tokens; text from data never becomes one."""

import json
import re
from collections.abc import Callable
from functools import cached_property
from typing import Literal

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase

from lorarec.io import JsonObject

#: The position of a piece of text: at the start of the prompt, directly after a control token, or after other text.
#: Some tokenizers add a space before the first word of the text (`start`) or of each section (`section`).
Place = Literal["start", "section", "inside"]
#: Texts that are put before a piece while a tokenizer written in Python encodes it, so that it is not at the start.
_ANCHORS = ("\n", "-")
#: Characters that few vocabularies have (cuneiform, hieroglyphs, runes), to find the token of unknown text.
_RARE = "\U00012000 \U00013000 \u16a0"


class TextEncoder:
    """Encodes a prompt piece by piece, each as the tokenizer encodes it at its position in the whole text.

    A control token is any special token and any token that was added to the vocabulary, such as `<|im_start|>` or
    `<think>`. Added runs of spaces or line breaks are not control tokens, and neither is the token of unknown words.

    Args:
        tokenizer: A Hugging Face tokenizer.

    Attributes:
        control: Ids of the control tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._backend = backend if isinstance(backend, Tokenizer) and _can_be_serialised(backend) else None
        added = _added_tokens(tokenizer)
        if tokenizer.unk_token_id in self._unguarded(_RARE, "start"):
            added.pop(str(tokenizer.unk_token), None)
        self.control = frozenset(added.values())
        self._pattern = _pattern(tokenizer, added)

    def template(self, text: str, place: Place = "start") -> list[int]:
        """Encode text of a template, in which control tokens are recognised."""
        if place == "start":
            return list(self.tokenizer(text, add_special_tokens=False).input_ids)
        control = self._pattern.search(text)
        if control is None:
            return self.plain(text, place)
        # The encoding of what follows a control token does not depend on what is before it.
        return self.plain(text[: control.start()], place) + self.template(text[control.start() :])

    def plain(self, text: str, place: Place = "start") -> list[int]:
        """Encode text from data, in which the text of a control token is encoded as ordinary characters."""
        ids = self._unguarded(text, place) if text else []
        if self.control.isdisjoint(ids):
            return ids
        # The ordinary vocabulary contains the text of a control token.
        return (
            self._split_normalised(text, place)
            if self._backend
            else self._split(text, place, self._encode_once_by_pattern)
        )

    def after(self, text: str, place: Place) -> Place:
        """Return the position of what follows a template's text that is at position `place`."""
        if not text:
            return place
        return "section" if any(match.end() == len(text) for match in self._pattern.finditer(text)) else "inside"

    def _unguarded(self, text: str, place: Place) -> list[int]:
        """Encode text without the step that recognises added tokens."""
        if self._backend:
            return list(self._pipelines[place].encode(text, add_special_tokens=False).ids)
        for anchor in _ANCHORS if place == "inside" else ():
            before, ids = self._call(anchor), self._call(anchor + text)
            if ids[: len(before)] == before:
                return ids[len(before) :]
        return self._call(text)

    def _split_normalised(self, text: str, place: Place) -> list[int]:
        """Encode text in parts after normalising it, since normalisation may produce the text of a control token."""
        normalizer = self._pipelines[place].normalizer
        return self._split(normalizer.normalize_str(text) if normalizer else text, place, self._encode_once_by_offset)

    def _encode_once_by_offset(self, text: str, place: Place) -> tuple[list[int], int]:
        """Encode normalised text, and return a position inside the first control token as well."""
        encoding = self._normalised_pipelines[place].encode(text, add_special_tokens=False)
        position = next((at for at, token in enumerate(encoding.ids) if token in self.control), None)
        return encoding.ids, encoding.offsets[position][0] + 1 if position is not None else 0

    def _encode_once_by_pattern(self, text: str, place: Place) -> tuple[list[int], int]:
        """Encode text, and return a position inside the text of the first control token as well."""
        control = self._pattern.search(text)
        return self._unguarded(text, place), control.start() + 1 if control else len(text) // 2

    def _split(self, text: str, place: Place, encode_once: Callable[[str, Place], tuple[list[int], int]]) -> list[int]:
        """Encode text in as few parts as needed to avoid control tokens; a character that is one becomes unknown."""
        ids: list[int] = []
        waiting = [(text, place)]
        while waiting:
            part, where = waiting.pop()
            encoded, cut = encode_once(part, where)
            if self.control.isdisjoint(encoded):
                ids += encoded
            elif len(part) == 1:
                unknown = self.tokenizer.unk_token_id
                ids += [] if unknown is None or unknown in self.control else [unknown]
            else:
                cut = min(max(cut, 1), len(part) - 1)
                waiting += [(part[cut:], "inside"), (part[:cut], where)]
        return ids

    def _call(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, **self._splitting).input_ids)

    @cached_property
    def _splitting(self) -> dict[str, bool]:
        """Return the option that splits the text of control tokens, if the tokenizer has it."""
        try:
            self.tokenizer("a", add_special_tokens=False, split_special_tokens=True)
        except (TypeError, ValueError):
            return {}
        return {"split_special_tokens": True}

    @cached_property
    def _pipelines(self) -> dict[Place, Tokenizer]:
        places: tuple[Place, ...] = ("start", "section", "inside")
        assert self._backend is not None
        return {place: _without_added_tokens(self._backend, place) for place in places}

    @cached_property
    def _normalised_pipelines(self) -> dict[Place, Tokenizer]:
        places: tuple[Place, ...] = ("start", "section", "inside")
        assert self._backend is not None
        return {place: _without_added_tokens(self._backend, place, normalised=True) for place in places}


def _added_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the id of every control token by its content."""
    known = getattr(tokenizer, "added_tokens_decoder", None)
    added = {str(token): int(number) for number, token in known.items()} if isinstance(known, dict) else {}
    special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    # SentencePiece writes a space as ▁.
    return {content: number for content, number in {**added, **special}.items() if content.strip("▁ \t\r\n")}


def _pattern(tokenizer: PreTrainedTokenizerBase, added: dict[str, int]) -> re.Pattern[str]:
    """Return a pattern of all control tokens, the longest first, with the white space that they absorb."""
    known = getattr(tokenizer, "added_tokens_decoder", None)
    taking = {str(token) for token in known.values() if token.rstrip} if isinstance(known, dict) else set()
    words = [
        re.escape(content) + (r"\s*" if content in taking else "") for content in sorted(added, key=len, reverse=True)
    ]
    return re.compile("|".join(words) or r"(?!)")


def _can_be_serialised(backend: Tokenizer) -> bool:
    """Return whether a tokenizer can be serialised; one with components written in Python cannot."""
    try:
        _components(backend)
    except Exception:  # the bindings raise plain Exceptions
        return False
    return True


def _components(backend: Tokenizer) -> JsonObject:
    """Serialise a tokenizer with an empty vocabulary, for its normalizer and pre-tokenizer."""
    shell = Tokenizer(models.BPE())
    if backend.normalizer is not None:
        shell.normalizer = backend.normalizer
    if backend.pre_tokenizer is not None:
        shell.pre_tokenizer = backend.pre_tokenizer
    return dict(json.loads(shell.to_str()))


def _without_added_tokens(backend: Tokenizer, place: Place, normalised: bool = False) -> Tokenizer:
    """Return a tokenizer for text at a position. It shares the model, and so the memory of the vocabulary.

    Args:
        backend: The tokenizer.
        place: The position of the text.
        normalised: Whether the text is normalised already.
    """
    components = _components(backend)
    normalizer = None if normalised else _at(components["normalizer"], place)
    components |= {"normalizer": normalizer, "pre_tokenizer": _at(components["pre_tokenizer"], place)}
    pipeline = Tokenizer.from_str(json.dumps(components))
    pipeline.model = backend.model
    return pipeline


def _at(component: JsonObject | None, place: Place) -> JsonObject | None:
    """Return a serialised component without its steps at the ends of a text that do not apply to the position."""
    if component is None:
        return None
    component = dict(component)
    kind, inside = component["type"], place == "inside"
    if kind == "Sequence":
        name = "normalizers" if "normalizers" in component else "pretokenizers"
        component[name] = [part for each in component[name] if (part := _at(each, place)) is not None]
    elif kind == "Metaspace" and (inside or (place == "section" and component["prepend_scheme"] == "first")):
        component["prepend_scheme"] = "never"
    elif kind == "ByteLevel" and "add_prefix_space" in component and inside:
        component["add_prefix_space"] = False
    elif kind == "Strip":
        component |= {"strip_left": component["strip_left"] and not inside, "strip_right": False}
    elif kind == "Prepend" and inside:
        return None
    return component
