"""Files, folders, locks and progress: change here how artefacts are written, replaced and locked on disk."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
