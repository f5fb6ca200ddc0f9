"""Chat templates: thinking is off, dates are fixed, the prompt ends where the answer begins."""

import datetime
from collections.abc import Callable, Iterator

import pytest
from transformers import PreTrainedTokenizerBase

from lorarec.errors import LorarecError
from lorarec.prompts import PromptBuilder
from lorarec.prompts.chat import chat_frame

#: Turns as the templates of these models write them.
CHATML = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}"
QWEN_3 = (
    "{%- for m in messages %}{%- if m.role == 'user' %}{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' + m.content + '<|im_end|>\n' }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)
DEEPSEEK_R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% else %}<|Assistant|>"
    "{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
QWEN_3_THINKING = CHATML + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n' }}{%- endif %}"
DEEPSEEK_V3 = (
    "{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|>{% if thinking is defined and thinking %}<think>{% else %}</think>"
    "{% endif %}{% endif %}"
)
GPT_OSS = (
    "{%- if reasoning_effort is not defined %}{%- set reasoning_effort = 'medium' %}{%- endif %}"
    "{{- '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') + '\nReasoning: ' + reasoning_effort }}"
    "{%- for m in messages %}{%- if m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>{%- else %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|return|>{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<|start|>assistant{%- endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- endif %}{{- 'Today Date: ' + date_string + '\n' }}"
    "{%- for m in messages %}{{- '<|h|>' + m.role + '<|e|>\n\n' + m.content | trim + '<|eot|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|h|>assistant<|e|>\n\n' }}{%- endif %}"
)
SEED = CHATML + "{%- if add_generation_prompt %}{{- 'assistant\n<seed:think>' }}{%- endif %}"
MAGISTRAL = (
    "{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}{% if add_generation_prompt %}[THINK]{% endif %}"
)
IMAGES = (
    "{% for m in messages %}{{ m.role }}: {% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% endif %}{% endfor %}.{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
#: Template -> the text before the message and after it.
FRAMES = {
    QWEN_3: ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    QWEN_3_THINKING: ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    DEEPSEEK_R1: ("<s><|User|>", "<|Assistant|><think>\n\n</think>\n\n"),
    DEEPSEEK_V3: ("<|User|>", "<|Assistant|></think>"),
    GPT_OSS: (
        "<|start|>system<|message|>Current date: 2024-07-26\nReasoning: low<|start|>user<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    LLAMA_2: ("<s>[INST] ", " [/INST] "),
    LLAMA_3: ("Today Date: 26 Jul 2024\n<|h|>user<|e|>\n\n", "<|eot|><|h|>assistant<|e|>\n\n"),
    SEED: ("<|im_start|>user\n", "<|im_end|>\nassistant\n<seed:think>\n\n</seed:think>\n\n"),
    MAGISTRAL: ("[INST]", "[/INST][THINK]\n\n[/THINK]\n\n"),
    IMAGES: ("user: ", ".assistant: "),
}
REFUSED = {
    "{{ raise_exception('only\nwith tools') }}": "cannot be used: only$",
    "{{ messages | tojson }}": "leaves the message out",
    "{{ messages[0].content }} {{ messages[0].content }}": "does not write a user's message as it is, once",
    "{% if %}": "cannot be used",
    "{{ messages[0].nothing.at.all }}": "cannot be used",
    "{{ 1 / 0 }}{{ messages[0].content }}": "division",
}


@pytest.fixture
def chat(tokenizer_of: Callable[[str], PreTrainedTokenizerBase]) -> Iterator[PreTrainedTokenizerBase]:
    """A tokenizer that takes any chat template."""
    tokenizer = tokenizer_of("gpt-2")
    yield tokenizer
    tokenizer.chat_template = None


@pytest.mark.parametrize("template", FRAMES)
def test_the_answer_begins_behind_the_prompt(chat: PreTrainedTokenizerBase, template: str) -> None:
    chat.chat_template = template
    assert chat_frame(chat) == FRAMES[template]


@pytest.mark.parametrize("template", REFUSED)
@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
def test_templates_that_cannot_be_used(chat: PreTrainedTokenizerBase, template: str, readout: str) -> None:
    chat.chat_template = template
    with pytest.raises(LorarecError, match=REFUSED[template]) as refused:
        PromptBuilder(chat, readout)
    assert "\n" not in str(refused.value)


def test_prompts_do_not_change_overnight(chat: PreTrainedTokenizerBase) -> None:
    """Prompts do not change with rare directives of dates either, or with a macro that reads the date."""
    day = "{% macro today() %}{{ strftime_now('%A, %-d %B %Y, %H:%M:%S %p, day %j') }}{% endmacro %}"
    chat.chat_template = day + "{{ today() }}: {{ messages[0].content }}"
    assert chat_frame(chat)[0] == "Friday, 26 July 2024, 12:00:00 PM, day 208: "
    assert datetime.date(2024, 7, 26).strftime("%A %j") == "Friday 208"


def test_several_templates_without_a_default(chat: PreTrainedTokenizerBase) -> None:
    chat.chat_template = {"default": LLAMA_2, "rag": CHATML}
    assert chat_frame(chat) == FRAMES[LLAMA_2]
    chat.chat_template = {"rag": CHATML}
    with pytest.raises(LorarecError, match="multiple chat templates with no default"):
        PromptBuilder(chat)


@pytest.mark.parametrize("kind", ["llama-2", "unigram-first", "gpt-2"])
def test_a_space_before_the_answer_belongs_to_it(
    tokenizer_of: Callable[[str], PreTrainedTokenizerBase], kind: str
) -> None:
    """Llama 2 writes a space before every answer: the answer is ` Yes`, and a title ` red lamp`."""
    tokenizer = tokenizer_of(kind)
    tokenizer.chat_template = LLAMA_2
    try:
        verdict, likelihood = PromptBuilder(tokenizer), PromptBuilder(tokenizer, "likelihood")
        answered = verdict.example(["lamp"], ["red lamp"])
        text = tokenizer.decode([*answered.prompt, *answered.branches[0], verdict.yes_no[0]])
        assert text.lower().endswith("red lamp [/inst] yes")
        assert not tokenizer.decode(answered.branches[0]).endswith(" ")
        listed = likelihood.example(["lamp"], ["red lamp"])
        assert tokenizer.decode([*listed.prompt, *listed.branches[0]]).endswith("[/INST] red lamp\n")
    finally:
        tokenizer.chat_template = None
