from .backbone import Backbone as Backbone
from .data import Dataset as Dataset
from .errors import LorarecError as LorarecError
from .evaluation import evaluate as evaluate
from .lora import mix as mix
from .personal import personalize as personalize
from .ranking import Ranker as Ranker
from .ranking import explain as explain
from .ranking import recommend as recommend
from .retrieval import Index as Index
from .training import train as train

__version__: str
