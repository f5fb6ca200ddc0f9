"""LoRA adapters and their mixtures: add a rule that combines adapters or a method that chooses their weights here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
