"""Click-through models by name."""

from typing import Any

from lorarec.ctr.autoint import AutoInt
from lorarec.ctr.caser import Caser
from lorarec.ctr.dcnv2 import DCNv2
from lorarec.ctr.deepfm import DeepFM
from lorarec.ctr.din import DIN
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.gru4rec_ctr import GRU4RecCTR
from lorarec.ctr.network import CTRNetwork, NetworkConfig
from lorarec.ctr.sasrec_ctr import SASRecCTR
from lorarec.ctr.sim import SIM
from lorarec.errors import LorarecError

MODELS: dict[str, type[CTRNetwork[Any]]] = {
    "deepfm": DeepFM,
    "autoint": AutoInt,
    "dcnv2": DCNv2,
    "gru4rec": GRU4RecCTR,
    "caser": Caser,
    "sasrec": SASRecCTR,
    "din": DIN,
    "sim": SIM,
}


def network_class(name: str) -> type[CTRNetwork[Any]]:
    """Return the class of a click-through model.

    Raises:
        LorarecError: There is no model of this name.
    """
    if name not in MODELS:
        raise LorarecError(f"no click-through model {name!r}: choose one of {', '.join(MODELS)}")
    return MODELS[name]


def new_network(name: str, encoder: FeatureEncoder, config: NetworkConfig | None = None) -> CTRNetwork[Any]:
    """Return an untrained model.

    Args:
        name: One of `MODELS`.
        encoder: Encoder that defines the fields.
        config: Sizes, an instance of the model's `config_class`; its defaults if None.

    Raises:
        LorarecError: There is no model of this name, or the config is that of another model.
    """
    network = network_class(name)
    config = network.config_class() if config is None else config
    if type(config) is not network.config_class:
        expected = network.config_class.__name__
        raise LorarecError(f"the config of {name} must be a {expected}, got a {type(config).__name__}")
    return network(encoder, config)
