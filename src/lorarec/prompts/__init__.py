"""Dataset rows to token ids; templates apart from code."""

from lorarec.prompts.build import Example, PromptBuilder
from lorarec.prompts.cases import case_examples, true_places
from lorarec.prompts.clicks import click_examples
from lorarec.prompts.template import CLICK, READOUTS, REASON, Template, TemplateText, read_template

__all__ = [
    "CLICK",
    "READOUTS",
    "REASON",
    "Example",
    "PromptBuilder",
    "Template",
    "TemplateText",
    "case_examples",
    "click_examples",
    "read_template",
    "true_places",
]
