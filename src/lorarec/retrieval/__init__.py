"""Retrieval of candidates from a whole catalogue: add a source of candidates to the index here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
