"""Language models: change here where causal language models are loaded from and how their weights are identified."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
