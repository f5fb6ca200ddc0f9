"""Models whose weights are quantized: how they are loaded, and which are refused by name."""

import importlib.util
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, CompressedTensorsConfig, FineGrainedFP8Config
from transformers.utils.quantization_config import Mxfp4Config

from lorarec.backbone.config import BackboneConfig
from lorarec.errors import LorarecError

#: Methods of stored models whose weights become floats when they are loaded, since an adapter's update would be lost in
#: them, or their layers are not linear layers of torch.
DEQUANTIZED: dict[str, Any] = {
    "fp8": FineGrainedFP8Config,
    "mxfp4": Mxfp4Config,
    "compressed-tensors": CompressedTensorsConfig,
}
#: Methods of stored models whose layers stay quantized, with adapters beside them.
QUANTIZED = ("bitsandbytes", "torchao")
#: How the library of a method is installed.
INSTALL = {
    "bitsandbytes": "pip install 'lorarec[quantized]'",
    "compressed-tensors": "pip install compressed-tensors",
    "torchao": "pip install torchao",
}


def quantization_arguments(config: BackboneConfig, stored: Any) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` of Transformers for a model that is quantized, or empty ones.

    Args:
        config: Options.
        stored: Transformers' configuration of the model.

    Raises:
        LorarecError: If the model is stored quantized by another method, or is to be quantized a second time, or the
            library of a method is not installed.
    """
    method = stored_method(stored)
    if method is None:
        return {} if config.quantization is None else _bitsandbytes(config)
    if config.quantization is not None:
        raise LorarecError(f"backbone {config.id} is stored quantized by {method}: load it without option quantization")
    if method not in (*DEQUANTIZED, *QUANTIZED):
        raise LorarecError(
            f"backbone {config.id} is stored quantized by {method}, which takes no adapters here: load the model that "
            "it was quantized from, with option quantization if it does not fit into memory"
        )
    _require_library(method)
    return {"quantization_config": DEQUANTIZED[method](dequantize=True)} if method in DEQUANTIZED else {}


def keep_gradients(model: nn.Module) -> None:
    """Keep 4-bit layers of bitsandbytes from arranging their weights for inference on a CPU when they are first used.

    The kernel for weights that are arranged so returns no gradients, so that training and mixing would be wrong.
    """
    layer: Any
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def stored_method(stored: Any) -> str | None:
    """Return the method by which a model is stored quantized, as Transformers names it; None if it is not.

    Args:
        stored: Transformers' configuration of the model.
    """
    for config in (stored, stored.get_text_config(decoder=True)):
        settings = getattr(config, "quantization_config", None)
        if not settings:
            continue
        if not isinstance(settings, dict):
            settings = settings.to_dict()
        if settings.get("load_in_8bit") or settings.get("load_in_4bit"):
            return "bitsandbytes"
        method = settings.get("quant_method", "an unnamed method")
        return str(getattr(method, "value", method))
    return None


def _bitsandbytes(config: BackboneConfig) -> dict[str, Any]:
    _require_library("bitsandbytes")
    options: dict[str, Any] = {"load_in_8bit": True}
    if config.quantization == "4bit":
        options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    return {"quantization_config": BitsAndBytesConfig(**options), "device_map": config.device or "auto"}


def _require_library(method: str) -> None:
    if method in INSTALL and importlib.util.find_spec(method.replace("-", "_")) is None:
        raise LorarecError(f"weights quantized by {method} need its library: {INSTALL[method]}")
