"""The number of tokens of a forward pass in training for which memory suffices."""

import os
from collections.abc import Iterator
from typing import Any

import torch

from lorarec.backbone import free_memory
from lorarec.io import available_memory
from lorarec.scoring import plan_for, training_mode
from lorarec.training.scoring_model import ScoringModel

#: Length in tokens of the sequence whose activations are measured.
MEASURED_TOKENS = 64
#: Largest share of the free memory that activations may take: the rest is for gradients, the optimizer and other work.
GPU_SHARE, CPU_SHARE = 0.5, 0.25
#: Most bytes of activations on a CPU, where longer passes take more memory and are no faster.
CPU_BYTES = 1.5 * 2**30


def pass_limit(model: ScoringModel, device: str) -> int:
    """Return the largest number of tokens of a forward pass whose activations fit into the memory at hand.

    Args:
        model: Model to train.
        device: Type of the device that this process trains on, also if the model has not been moved there yet.
    """
    return max(1, int(_bytes_at_hand(model, device) / activation_bytes(model)))


def _bytes_at_hand(model: ScoringModel, device: str) -> float:
    if device == "cpu":
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return min(CPU_BYTES, CPU_SHARE * available_memory() / local_processes)
    to_be_moved = sum(weight.nbytes for weight in model.parameters() if weight.device.type == "cpu")
    return GPU_SHARE * max(0, free_memory(device) - to_be_moved)


def activation_bytes(model: ScoringModel) -> float:
    """Return the number of bytes per token that a forward pass keeps for the backward pass.

    It is measured on a short sequence, because it depends on the architecture, the adapted layers, the data type and
    the checkpointing of activations.

    Args:
        model: Model to train.
    """
    base: Any = model.base_model.model
    trunk = plan_for(base).trunk
    weights = {storage.data_ptr() for weight in model.parameters() for storage in _storages(weight)}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        for storage in _storages(tensor):
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.zeros(1, MEASURED_TOKENS, dtype=torch.long, device=base.device)
    with training_mode(model), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        # The output holds the graph, and with it the storages, so that none of their addresses occurs twice.
        output = trunk(input_ids=ids, use_cache=False)
    del output
    return sum(kept.values()) / MEASURED_TOKENS


def _storages(tensor: torch.Tensor) -> Iterator[torch.UntypedStorage]:
    """Yield the storages of a tensor, which are several for the quantized weights of torchao."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor.untyped_storage()
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _storages(getattr(tensor, name))
