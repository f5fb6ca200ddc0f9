"""The HTTP service and its page: add an endpoint or change how requests are checked and batched here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
