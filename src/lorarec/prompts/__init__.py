"""Dataset rows to token ids; templates apart from code."""

from lorarec.prompts.build import Example, PromptBuilder
from lorarec.prompts.template import READOUTS, Template

__all__ = ["READOUTS", "Example", "PromptBuilder", "Template"]
