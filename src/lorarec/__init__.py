"""Recommendation with language models and mixed LoRA adapters."""

import lazy_loader

__version__ = "0.2.0"

# Names are loaded on first use, so that `import lorarec` is fast.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
