"""What rows leave in `TrainingData.folder` for each other, under names that tell what it was made of."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorarec.errors import LorarecError
from lorarec.io import locked, new_folder, versions, write_json
from lorarec.recommenders.training_data import TrainingData

WEIGHTS, RECORD = "model.safetensors", "made_of.json"


def cached_dir(material: TrainingData, kind: str, of: Any, make: Callable[[Path], None]) -> Path:
    """A folder made by the first that asks for it; other processes wait meanwhile, and find it.

    Args:
        kind: how its name begins.
        of: JSON of all that decides what is in it.
        make: writes the folder, whole or not at all.

    Raises:
        LorarecError: the material has no folder.
    """
    material.need("folder")
    assert material.folder is not None
    out = material.folder / f"{kind}-{hashlib.sha256(json.dumps(of).encode()).hexdigest()[:12]}"
    with locked(out.with_name(f".{out.name}.lock")):
        if not out.exists():
            make(out)
    return out


def cached_tensors(
    material: TrainingData, kind: str, of: dict[str, Any], make: Callable[[], dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Tensors that `cached_dir` keeps; made anew by each that asks where the material has no folder.

    Raises:
        LorarecError: what is kept cannot be read.
    """
    if material.folder is None:
        return make()

    def write(out: Path) -> None:
        with new_folder(out) as folder:
            save_file(make(), folder / WEIGHTS)
            write_json(folder / RECORD, {"made_of": of, "versions": versions()})

    kept = cached_dir(material, kind, of, write)
    try:
        return load_file(kept / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise LorarecError(f"{kept / WEIGHTS} cannot be read ({error}): remove {kept}") from error
