from .embeddings import mean_states as mean_states
from .embeddings import title_embeddings as title_embeddings
from .load import EMBEDDED as EMBEDDED
from .load import Backbone as Backbone
from .load import embedded_folder as embedded_folder
from .load import load_tokenizer as load_tokenizer
from .load import source_of as source_of
from .load import weights_dtype as weights_dtype
