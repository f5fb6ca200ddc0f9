"""Conventional recommenders by name."""

from collections.abc import Mapping
from typing import Any

from lorarec.conventional.autoint import AutoInt
from lorarec.conventional.base import Recommender
from lorarec.conventional.caser import Caser
from lorarec.conventional.dcnv2 import DCNv2
from lorarec.conventional.deepfm import DeepFM
from lorarec.conventional.din import DIN
from lorarec.conventional.fields import Encoder
from lorarec.conventional.gru4rec import GRU4Rec
from lorarec.conventional.sasrec import SASRec
from lorarec.conventional.sim import SIM
from lorarec.errors import LorarecError

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


def build(name: str, encoder: Encoder, architecture: Mapping[str, Any]) -> Recommender:
    """An untrained model.

    Args:
        name: one of `MODELS`.
        encoder: says which fields there are.
        architecture: arguments of the model's class; defaults for the rest.

    Raises:
        LorarecError: no model of this name, or an argument that it does not have.
    """
    if name not in MODELS:
        raise LorarecError(f"no conventional recommender {name!r}: choose one of {', '.join(MODELS)}")
    try:
        return MODELS[name](encoder, **architecture)
    except TypeError as error:
        raise LorarecError(f"cannot build {name} with {dict(architecture)}: {error}") from error
