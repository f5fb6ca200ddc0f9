"""A Hugging Face causal LM; the embedded default and the recipe that made it."""

from lorarec.backbone.load import EMBEDDED, Backbone

__all__ = ["EMBEDDED", "Backbone"]
