"""Where an adapter is read from: a folder, or a repository of the hub, which is downloaded."""

from collections.abc import Sequence
from pathlib import Path

from lorarec.errors import LorarecError
from lorarec.io import local_folder

#: Patterns of the files of a repository that are downloaded.
DOWNLOADED = ("adapter_config.json", "adapter_model.safetensors", "lorarec.json", "*.j2")


def adapter_folder(adapter: str | Path, others: Sequence[str] = ()) -> Path:
    """Return the folder of an adapter, which for a hub id is downloaded.

    Args:
        adapter: Path of a PEFT folder, or hub id (see `lorarec.io.local_folder`).
        others: Patterns of further files that are downloaded.

    Raises:
        LorarecError: If there is no such folder, or it cannot be downloaded.
    """
    folder = local_folder(adapter, (*DOWNLOADED, *others), "adapter")
    if not folder.is_dir():
        raise LorarecError(f"adapter {folder} does not exist: give a PEFT folder")
    return folder
