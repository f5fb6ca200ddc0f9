"""The readers of a history by name."""

from lorarec.recommenders.sequential.fmlp import FMLPRec
from lorarec.recommenders.sequential.gru4rec import GRU4Rec
from lorarec.recommenders.sequential.sasrec import SASRec
from lorarec.recommenders.sequential.sequence_encoder import SequenceEncoder

SEQUENCE_ENCODERS: dict[str, type[SequenceEncoder]] = {"sasrec": SASRec, "gru4rec": GRU4Rec, "fmlp": FMLPRec}
