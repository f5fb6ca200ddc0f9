"""Folders in `TrainingData.cache_dir` that several recommenders share; their names contain a hash of their contents."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorarec.errors import LorarecError
from lorarec.io import locked, new_folder, versions, write_json
from lorarec.recommenders.training_data import TrainingData

WEIGHTS, RECORD = "model.safetensors", "made_of.json"


def cached_dir(data: TrainingData, kind: str, key: object, write: Callable[[Path], None]) -> Path:
    """Return a folder in the cache, written by the first process that needs it while others wait.

    Args:
        kind: Start of the folder's name.
        key: JSON value of everything that decides what the folder contains.
        write: Function that writes the folder, completely or not at all.

    Raises:
        LorarecError: `data` has no cache_dir.
    """
    data.require("cache_dir")
    assert data.cache_dir is not None
    return _written_once(data.cache_dir, kind, key, write)


def cached_tensors(
    cache_dir: Path | None, kind: str, key: object, compute: Callable[[], dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Return tensors from the cache; without a cache_dir they are computed at each call.

    Args:
        cache_dir: Folder of the cache, such as `TrainingData.cache_dir`, or None.
        kind: Start of the name of the tensors' folder.
        key: JSON value of everything that decides the tensors.
        compute: Function that computes them.

    Raises:
        LorarecError: The cached file cannot be read.
    """
    if cache_dir is None:
        return compute()

    def write(out: Path) -> None:
        with new_folder(out) as folder:
            save_file(compute(), folder / WEIGHTS)
            write_json(folder / RECORD, {"made_of": key, "versions": versions()})

    folder = _written_once(cache_dir, kind, key, write)
    try:
        return load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise LorarecError(f"{folder / WEIGHTS} cannot be read ({error}): remove {folder}") from error


def _written_once(cache_dir: Path, kind: str, key: object, write: Callable[[Path], None]) -> Path:
    out = cache_dir / f"{kind}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]}"
    with locked(out.with_name(f".{out.name}.lock")):
        if not out.exists():
            write(out)
    return out
