"""Interaction logs and item texts: add a log format, a filter, a split protocol or a dataset statistic here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
