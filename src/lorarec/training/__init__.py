"""Training of LoRA adapters: add a loss, a way to draw training cases or a training option here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
