"""Dataset rows to token ids; templates apart from code."""

from lorarec.prompts.build import Example, PromptBuilder
from lorarec.prompts.cases import case_examples, true_places
from lorarec.prompts.clicks import click_examples
from lorarec.prompts.encode import TextEncoder
from lorarec.prompts.template import CLICK, READOUTS, REASON, Template

__all__ = [
    "CLICK",
    "READOUTS",
    "REASON",
    "Example",
    "PromptBuilder",
    "Template",
    "TextEncoder",
    "case_examples",
    "click_examples",
    "true_places",
]
