"""The number of tokens of a forward pass in training for which memory suffices."""

import os
from typing import Any

import psutil
import torch

from lorarec.scoring import plan_for, training_mode
from lorarec.training.scoring_model import ScoringModel

#: Length in tokens of the sequence whose activations are measured.
MEASURED_TOKENS = 64
#: Largest share of the free memory that activations may take: the rest is for gradients, the optimizer and other work.
GPU_SHARE, CPU_SHARE = 0.5, 0.25
#: Most bytes of activations on a CPU, where longer passes take more memory and are no faster.
CPU_BYTES = 1.5 * 2**30


def pass_limit(model: ScoringModel, on_gpu: bool) -> int:
    """Return the largest number of tokens of a forward pass whose activations fit into the memory at hand.

    Args:
        model: Model to train.
        on_gpu: Whether this process trains on its current GPU, also if the model has not been moved there yet.
    """
    return max(1, int(_bytes_at_hand(model, on_gpu) / activation_bytes(model)))


def _bytes_at_hand(model: ScoringModel, on_gpu: bool) -> float:
    if not on_gpu:
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return min(CPU_BYTES, CPU_SHARE * psutil.virtual_memory().available / local_processes)
    free, _ = torch.cuda.mem_get_info()
    to_be_moved = sum(weight.nbytes for weight in model.parameters() if weight.device.type == "cpu")
    return GPU_SHARE * max(0, free - to_be_moved)


def activation_bytes(model: ScoringModel) -> float:
    """Return the number of bytes per token that a forward pass keeps for the backward pass.

    It is measured on a short sequence, because it depends on the architecture, the adapted layers, the data type and
    the checkpointing of activations.

    Args:
        model: Model to train.
    """
    base: Any = model.base_model.model
    trunk = plan_for(base).trunk
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.zeros(1, MEASURED_TOKENS, dtype=torch.long, device=base.device)
    with training_mode(model), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        # The output holds the graph, and with it the storages, so that none of their addresses occurs twice.
        output = trunk(input_ids=ids, use_cache=False)
    del output
    return sum(kept.values()) / MEASURED_TOKENS
