"""One-pass scoring of a prompt's candidates: add a readout here, or a plan for an architecture that has none."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
