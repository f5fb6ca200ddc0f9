"""Conventional recommenders by name."""

from collections.abc import Mapping
from typing import Any

from lorarec.ctr.autoint import AutoInt
from lorarec.ctr.caser import Caser
from lorarec.ctr.dcnv2 import DCNv2
from lorarec.ctr.deepfm import DeepFM
from lorarec.ctr.din import DIN
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.gru4rec import GRU4RecCTR
from lorarec.ctr.network import CTRNetwork
from lorarec.ctr.sasrec import SASRecCTR
from lorarec.ctr.sim import SIM
from lorarec.errors import LorarecError

MODELS: dict[str, type[CTRNetwork]] = {
    "deepfm": DeepFM,
    "autoint": AutoInt,
    "dcnv2": DCNv2,
    "gru4rec": GRU4RecCTR,
    "caser": Caser,
    "sasrec": SASRecCTR,
    "din": DIN,
    "sim": SIM,
}


def build(name: str, encoder: FeatureEncoder, architecture: Mapping[str, Any]) -> CTRNetwork:
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
