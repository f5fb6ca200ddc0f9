"""Tables of experiments from YAML recipes: add a compared system, a kind of table or a place to run it here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
