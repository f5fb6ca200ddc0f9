"""Personal adapters (RecLoRA): change here how a router mixes adapters for every user and how it is trained."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
