"""The first stage of recommendation: a few candidates for a history, out of a whole catalogue."""

from lorarec.retrieval.index import Index, Proposal

__all__ = ["Index", "Proposal"]
