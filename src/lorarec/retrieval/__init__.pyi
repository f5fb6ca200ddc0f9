from .index import Index as Index
from .index import Proposal as Proposal
from .item_rules import Boost as Boost
from .item_rules import CatalogueRules as CatalogueRules
from .item_rules import ItemRules as ItemRules
from .nearest import best as best
