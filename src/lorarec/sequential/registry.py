"""The readers of a history by name."""

from lorarec.sequential.fmlp import FMLPRec
from lorarec.sequential.gru4rec import GRU4Rec
from lorarec.sequential.sasrec import SASRec
from lorarec.sequential.sequence import Sequence

SEQUENCES: dict[str, type[Sequence]] = {"sasrec": SASRec, "gru4rec": GRU4Rec, "fmlp": FMLPRec}
