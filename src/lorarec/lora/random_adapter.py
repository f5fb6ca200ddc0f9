"""Random adapters, the control of mixtures: what a second adapter is worth that has learned nothing."""

from dataclasses import replace
from pathlib import Path

import torch

from lorarec.io import FolderKind, new_folder
from lorarec.lora.peft_folder import Adapter, AdapterLike, read_adapter, save_adapter
from lorarec.lora.prompt_record import prompt_config
from lorarec.lora.record import AdapterRecord


def write_random_adapter(like: AdapterLike, out: str | Path, seed: int) -> Adapter:
    """Write an adapter with the layers, ranks, scales and prompts of another one, and random matrices.

    The entries of A and of B are normal with mean zero and, layer by layer, the root mean square of those of the other
    adapter, so that both adapters change the model about as much.

    Args:
        like: The other adapter.
        out: Path of the adapter folder to write.
        seed: The seed of the draw.

    Raises:
        LorarecError: The other adapter cannot be read, or `out` exists.
    """
    other = read_adapter(like)
    generator = torch.Generator().manual_seed(seed)

    def draw(matrix: torch.Tensor) -> torch.Tensor:
        return torch.randn(matrix.shape, generator=generator) * matrix.float().square().mean().sqrt()

    tensors = {name: (draw(a), draw(b)) for name, (a, b) in other.tensors.items()}
    record = other.record or AdapterRecord()
    # Nothing was learned from any dataset, nor is the result a mixture.
    kept = AdapterRecord(
        prompt_config(other), record.backbone_id, record.backbone_fingerprint, details={"random": seed}
    )
    with new_folder(Path(out), False, FolderKind.ADAPTER) as folder:
        save_adapter(replace(other, tensors=tensors), folder, other.config["base_model_name_or_path"], kept)
    return read_adapter(out)
