"""Conventional recommenders by name."""

from lorarec.conventional.autoint import AutoInt
from lorarec.conventional.base import Recommender
from lorarec.conventional.caser import Caser
from lorarec.conventional.dcnv2 import DCNv2
from lorarec.conventional.deepfm import DeepFM
from lorarec.conventional.din import DIN
from lorarec.conventional.gru4rec import GRU4Rec
from lorarec.conventional.sasrec import SASRec
from lorarec.conventional.sim import SIM

MODELS: dict[str, type[Recommender]] = {
    "deepfm": DeepFM,
    "autoint": AutoInt,
    "dcnv2": DCNv2,
    "gru4rec": GRU4Rec,
    "caser": Caser,
    "sasrec": SASRec,
    "din": DIN,
    "sim": SIM,
}
