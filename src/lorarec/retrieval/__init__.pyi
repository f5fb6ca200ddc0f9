from .index import Index as Index
from .index import Proposal as Proposal
