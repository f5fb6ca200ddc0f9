"""The first stage of recommendation: a few candidates for a history, out of a whole catalogue."""

from lorarec.retrieval.index import Index, Proposal
from lorarec.retrieval.next_item import NextItemOptions

__all__ = ["Index", "NextItemOptions", "Proposal"]
