from .entry import main as main
from .options import quieten_transformers as quieten_transformers
