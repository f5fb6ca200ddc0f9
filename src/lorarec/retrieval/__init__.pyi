from .index import Index as Index
from .index import Proposal as Proposal
from .nearest import best as best
