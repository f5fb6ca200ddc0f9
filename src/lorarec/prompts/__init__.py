"""Dataset rows to token ids; templates apart from code."""

from lorarec.prompts.build import Example, PromptBuilder
from lorarec.prompts.cases import case_examples, true_places
from lorarec.prompts.clicks import click_examples
from lorarec.prompts.encode import TextEncoder
from lorarec.prompts.show import ShownToken, show_text, show_tokens
from lorarec.prompts.template import CLICK, READOUTS, REASON, Template

__all__ = [
    "CLICK",
    "READOUTS",
    "REASON",
    "Example",
    "PromptBuilder",
    "ShownToken",
    "Template",
    "TextEncoder",
    "case_examples",
    "click_examples",
    "show_text",
    "show_tokens",
    "true_places",
]
