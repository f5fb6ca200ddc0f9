"""Sequence encoders by name."""

from lorarec.recommenders.sequential.config import EncoderName
from lorarec.recommenders.sequential.esasrec_encoder import ESASRecEncoder
from lorarec.recommenders.sequential.fmlp_rec_encoder import FMLPRecEncoder
from lorarec.recommenders.sequential.gru4rec_encoder import GRU4RecEncoder
from lorarec.recommenders.sequential.sasrec_encoder import SASRecEncoder
from lorarec.recommenders.sequential.sequence_encoder import SequenceEncoder

SEQUENCE_ENCODERS: dict[EncoderName, type[SequenceEncoder]] = {
    "sasrec": SASRecEncoder,
    "esasrec": ESASRecEncoder,
    "gru4rec": GRU4RecEncoder,
    "fmlp": FMLPRecEncoder,
}
