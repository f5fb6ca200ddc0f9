"""Ranking with a backbone and adapters: change here how candidates are ranked, recommended and explained."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
