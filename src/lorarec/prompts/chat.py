"""Chat templates: what a tokenizer's chat template writes around a message, up to where the answer begins."""

import re
from typing import Any

from transformers import PreTrainedTokenizerBase

from lorarec.errors import LorarecError

#: The date in every prompt, by strftime directive. Some templates write today's date, with which a prompt would change
#: from day to day. This is the date that Llama 3's template falls back to, a Friday.
DATE = {
    "%-d": "26", "%-m": "7", "%A": "Friday", "%B": "July", "%F": "2024-07-26", "%H": "12", "%I": "12", "%M": "00",
    "%S": "00", "%Y": "2024", "%a": "Fri", "%b": "Jul", "%d": "26", "%j": "208", "%m": "07", "%p": "PM", "%y": "24",
}  # fmt: skip
#: Switches of templates that make a model think before it answers, and the values that turn this off.
THINKING_OFF: dict[str, Any] = {"enable_thinking": False, "thinking": False, "thinking_budget": 0}
_EFFORT = "reasoning_effort"
#: An open tag at the end of a prompt, behind which the model would think.
_OPEN_THOUGHT = re.compile(r"(?P<open><(?P<name>(\w+:)?(think|thinking|thought|reasoning))>|\[THINK\])\s*\Z")
_MESSAGE, _ANSWER = "\x00message\x00", "\x00answer\x00"


def chat_frame(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """What the chat template of a tokenizer writes before a user's message, and between it and the answer.

    The template is rendered once with a mark for the message, so that no text of a message can steer it.

    Raises:
        LorarecError: the template cannot be rendered, or it does not write the message as it is and once.
    """
    opened = _render(tokenizer, [_turn("user", _MESSAGE)], generate=True)
    before, found, after = opened.partition(_MESSAGE)
    if not found or _MESSAGE in after:
        raise LorarecError(f"the chat template of {name_of(tokenizer)} does not write a user's message as it is, once")
    return before, after + _rest_of_opening(tokenizer, opened)


def name_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Where a tokenizer comes from, for messages."""
    return f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__}"


def _rest_of_opening(tokenizer: PreTrainedTokenizerBase, opened: str) -> str:
    """The text between the generation prompt and an answer without thoughts.

    It is read from an answered conversation, if the template renders that with the same beginning. Templates that leave
    thoughts out of answered conversations do not show it, so the tag that they leave open is closed here.
    """
    try:
        answered = _render(tokenizer, [_turn("user", _MESSAGE), _turn("assistant", _ANSWER)], generate=False)
    except LorarecError:
        answered = ""  # not every template takes a conversation that ends with an answer
    head, found, _ = answered.partition(_ANSWER)
    if found and head.startswith(opened) and not _OPEN_THOUGHT.search(head):
        return head.removeprefix(opened)
    thought = _OPEN_THOUGHT.search(opened)
    if thought is None:
        return ""
    close = f"</{thought['name']}>" if thought["name"] else "[/THINK]"
    return ("" if opened.endswith("\n") else "\n") + f"\n{close}\n\n"


def _turn(role: str, content: str | list[dict[str, str]]) -> dict[str, Any]:
    return {"role": role, "content": content}


def _render(tokenizer: PreTrainedTokenizerBase, conversation: list[dict[str, Any]], generate: bool) -> str:
    """The conversation as text; contents are lists of parts for templates of multimodal models that need them so.

    Raises:
        LorarecError: the template cannot be rendered.
    """
    reasons = []
    for turns in (conversation, [_turn(turn["role"], _parts(turn["content"])) for turn in conversation]):
        try:
            template = tokenizer.get_chat_template()
            text = tokenizer.apply_chat_template(
                turns,
                chat_template=_fixed_date() + template,
                tokenize=False,
                add_generation_prompt=generate,
                **_thinking_off(template),
            )
        except Exception as error:  # a template is foreign code, which may raise anything
            reasons.append((str(error).strip() or repr(error)).splitlines()[0])
            continue
        if _MESSAGE in str(text):
            return str(text)
        reasons.append("it leaves the message out")
    raise LorarecError(f"the chat template of {name_of(tokenizer)} cannot be used: {reasons[0]}")


def _parts(content: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}]


def _thinking_off(template: str) -> dict[str, Any]:
    """Values for the switches that a template has."""
    options = {name: value for name, value in THINKING_OFF.items() if re.search(rf"\b{name}\b", template)}
    if _EFFORT in template:
        options[_EFFORT] = "none" if re.search(r"""["']none["']""", template) else "low"
    return options


def _fixed_date() -> str:
    """A macro that stands in for the function `strftime_now` of chat templates."""
    replaced = "".join(f" | replace({directive!r}, {value!r})" for directive, value in DATE.items())
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n"
