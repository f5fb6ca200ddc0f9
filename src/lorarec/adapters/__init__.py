"""The bank of LoRA adapters, the two rules that mix it, the mixed layer, and PEFT folders in and out."""

from lorarec.adapters.bank import DELTAS, FACTORS, RULES, AdapterBank, Layer, Weights
from lorarec.adapters.install import Folded, MixedModel, fold, install
from lorarec.adapters.low_rank import cut
from lorarec.adapters.mixed_linear import MixedLinear
from lorarec.adapters.peft_io import Adapter, check_backbone, read_adapter, read_tensors, save_adapter

__all__ = [
    "DELTAS",
    "FACTORS",
    "RULES",
    "Adapter",
    "AdapterBank",
    "Folded",
    "Layer",
    "MixedLinear",
    "MixedModel",
    "Weights",
    "check_backbone",
    "cut",
    "fold",
    "install",
    "read_adapter",
    "read_tensors",
    "save_adapter",
]
