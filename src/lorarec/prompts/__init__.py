"""Dataset rows to token ids; templates apart from code."""

from lorarec.prompts.build import Example, PromptBuilder
from lorarec.prompts.cases import case_examples, true_places
from lorarec.prompts.clicks import click_examples
from lorarec.prompts.encode import TextEncoder
from lorarec.prompts.show import ShownToken, show_text, show_tokens
from lorarec.prompts.template import CLICK, READOUTS, REASON, Template, TemplateText, read_template

__all__ = [
    "CLICK",
    "READOUTS",
    "REASON",
    "Example",
    "PromptBuilder",
    "ShownToken",
    "Template",
    "TemplateText",
    "TextEncoder",
    "case_examples",
    "click_examples",
    "read_template",
    "show_text",
    "show_tokens",
    "true_places",
]
