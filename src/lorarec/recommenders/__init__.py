"""Recommenders that learn from a split and score candidates: add a recommender or baseline here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
