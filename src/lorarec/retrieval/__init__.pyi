from .index import INDEX_VERSION as INDEX_VERSION
from .index import Index as Index
from .index import Proposal as Proposal
from .index_update import update_index as update_index
from .item_rules import Boost as Boost
from .item_rules import CatalogueRules as CatalogueRules
from .item_rules import ItemRules as ItemRules
from .nearest import best as best
