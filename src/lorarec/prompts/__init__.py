"""Prompts: change here the templates and how titles, histories and candidates become token ids."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
