"""The text that a tokenizer's chat template writes around a message, up to the beginning of the answer."""

import re
from typing import Any

from transformers import PreTrainedTokenizerBase

from lorarec.errors import LorarecError
from lorarec.io import JsonObject

#: The date in every prompt, by strftime directive. Some templates write today's date, so that prompts would change from
#: day to day. This is the default date of Llama 3's template, a Friday.
DATE = {
    "%-d": "26", "%-m": "7", "%A": "Friday", "%B": "July", "%F": "2024-07-26", "%H": "12", "%I": "12", "%M": "00",
    "%S": "00", "%Y": "2024", "%a": "Fri", "%b": "Jul", "%d": "26", "%j": "208", "%m": "07", "%p": "PM", "%y": "24",
}  # fmt: skip
#: Variables of templates that make a model think before it answers, and the values that turn this off.
THINKING_OFF: dict[str, bool | int] = {"enable_thinking": False, "thinking": False, "thinking_budget": 0}
_EFFORT = "reasoning_effort"
#: An open tag at the end of a prompt, after which the model would think.
_OPEN_THOUGHT = re.compile(r"(?P<open><(?P<name>(\w+:)?(think|thinking|thought|reasoning))>|\[THINK\])\s*\Z")
_MESSAGE, _ANSWER = "\x00message\x00", "\x00answer\x00"


def chat_frame(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Return the text that the chat template of a tokenizer writes before a user's message and after it.

    The template is rendered once with a placeholder for the message, so that the text of a message cannot change it.

    Returns:
        The text before the message, and the text between the message and the answer.

    Raises:
        LorarecError: The template cannot be rendered, or does not write the message unchanged and exactly once.
    """
    opened = _render(tokenizer, [_turn("user", _MESSAGE)], generate=True)
    before, found, after = opened.partition(_MESSAGE)
    if not found or _MESSAGE in after:
        raise LorarecError(f"the chat template of {name_of(tokenizer)} does not write a user's message as it is, once")
    return before, after + _rest_of_opening(tokenizer, opened)


def name_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the name of a tokenizer for error messages."""
    return f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__}"


def _rest_of_opening(tokenizer: PreTrainedTokenizerBase, opened: str) -> str:
    """Return the text between the generation prompt and an answer without thoughts.

    It is read from an answered conversation, if the template renders that with the same beginning. Templates that omit
    thoughts from answered conversations do not show it; a tag that they leave open is closed here.
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


#: A message of a conversation: its role, and its content as text or as a list of parts.
Turn = dict[str, Any]


def _turn(role: str, content: str | list[dict[str, str]]) -> Turn:
    return {"role": role, "content": content}


def _render(tokenizer: PreTrainedTokenizerBase, conversation: list[Turn], generate: bool) -> str:
    """Render a conversation, with contents as lists of parts if the template (of a multimodal model) requires it.

    Raises:
        LorarecError: The template cannot be rendered.
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
        except Exception as error:  # a template may raise anything
            reasons.append((str(error).strip() or repr(error)).splitlines()[0])
            continue
        if _MESSAGE in str(text):
            return str(text)
        reasons.append("it leaves the message out")
    raise LorarecError(f"the chat template of {name_of(tokenizer)} cannot be used: {reasons[0]}")


def _parts(content: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}]


def _thinking_off(template: str) -> JsonObject:
    """Return values for the variables of `THINKING_OFF` that a template has."""
    options: JsonObject = {name: value for name, value in THINKING_OFF.items() if re.search(rf"\b{name}\b", template)}
    if _EFFORT in template:
        options[_EFFORT] = "none" if re.search(r"""["']none["']""", template) else "low"
    return options


def _fixed_date() -> str:
    """Return a macro that replaces the function `strftime_now` of chat templates."""
    replaced = "".join(f" | replace({directive!r}, {value!r})" for directive, value in DATE.items())
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n"
