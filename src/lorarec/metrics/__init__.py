"""Metrics of rankings and of click probabilities: add a metric, an interval or a test here, as a pure function."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
