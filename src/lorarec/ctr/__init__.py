"""Click-through-rate models: add a model that predicts clicks from ids and features here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
