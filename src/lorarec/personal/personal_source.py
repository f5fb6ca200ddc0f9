"""The folder of personal adapters, which a hub id names as well, without the libraries that load models."""

import os
from pathlib import Path

from lorarec.errors import LorarecError
from lorarec.io import FolderKind, local_folder

PERSONAL = "personal"
#: Patterns of the files that are uploaded and downloaded: what `export_user` and `UserRouter.load` read.
PERSONAL_FILES = (
    FolderKind.PERSONALIZATION.marker,
    FolderKind.USER_ROUTER.marker,
    FolderKind.USER_ROUTER.former_marker,
    "users.parquet",
    "titles.parquet",
    "template.j2",
    *FolderKind.CTR_MODEL.under("crm"),
    *FolderKind.PERSONAL_LORA.under(PERSONAL),
)


def personal_folder(source: str | Path) -> Path:
    """Return the folder of personal adapters, which for a hub id is downloaded.

    Args:
        source: Path of a folder that `personalize` or `train_user_router` wrote, or hub id (see
            `lorarec.io.local_folder`).

    Raises:
        LorarecError: If there is no such folder, or it cannot be downloaded.
    """
    folder = local_folder(source, PERSONAL_FILES, "personal adapters")
    if not os.path.lexists(folder / PERSONAL / FolderKind.PERSONAL_LORA.marker):
        raise LorarecError(
            f"{source} has no personal adapters: give a folder of `lorarec personal train` or `lorarec personal "
            "train-router`, or its hub id"
        )
    return folder
