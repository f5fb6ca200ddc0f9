"""Every compared system behind one face: learn from a split, score candidate sets."""

from lorarec.systems.material import Material
from lorarec.systems.registry import SEEDLESS, SYSTEMS, System

__all__ = ["SEEDLESS", "SYSTEMS", "Material", "System"]
