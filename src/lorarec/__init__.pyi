from .backbone import Backbone as Backbone
from .backbone import BackboneConfig as BackboneConfig
from .data import Dataset as Dataset
from .data import Split as Split
from .data import leave_one_out as leave_one_out
from .data import load_sample as load_sample
from .data import load_split as load_split
from .errors import LorarecError as LorarecError
from .evaluation import Evaluation as Evaluation
from .evaluation import evaluate as evaluate
from .lora import Adapter as Adapter
from .lora import MixedAdapter as MixedAdapter
from .lora import MixingConfig as MixingConfig
from .lora import mix as mix
from .personal import PersonalizationConfig as PersonalizationConfig
from .personal import UserRouterConfig as UserRouterConfig
from .personal import personalize as personalize
from .personal import train_user_router as train_user_router
from .prompts import PromptConfig as PromptConfig
from .ranking import Explanation as Explanation
from .ranking import Fusion as Fusion, PoolScorer as PoolScorer
from .ranking import Ranked as Ranked
from .ranking import Ranker as Ranker
from .ranking import Recommendation as Recommendation
from .ranking import VllmEngine as VllmEngine
from .ranking import adapter_scorers as adapter_scorers
from .ranking import explain as explain
from .ranking import fuse as fuse, pool_scorers as pool_scorers
from .ranking import rank_items as rank_items
from .ranking import recommend as recommend
from .ranking import recommend_users as recommend_users
from .recommenders import FusionConfig as FusionConfig
from .retrieval import Index as Index
from .training import TrainingConfig as TrainingConfig
from .training import train as train

__version__: str
