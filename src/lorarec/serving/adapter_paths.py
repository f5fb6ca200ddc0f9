"""Where the adapters of a service are: a folder of adapters, folders and repositories of the hub."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lorarec.errors import LorarecError
from lorarec.io import HubId, source_name
from lorarec.lora import adapter_folder
from lorarec.personal import PERSONAL_FILES


@dataclass(frozen=True)
class AdapterPaths:
    """Folder of adapters, and further ones by name.

    Attributes:
        folder: Folder of PEFT folders and of folders of `train_user_router`, or None.
        further: Paths and hub ids of further adapters, by the names that requests have.
    """

    folder: Path | None = None
    further: dict[str, str] = field(default_factory=dict)


def find_adapters(texts: Sequence[str]) -> AdapterPaths:
    """Find the adapters that an option names, before the backbone is loaded; those of the hub are downloaded.

    Args:
        texts: A folder of adapters, and adapters: hub ids, NAME=OWNER/NAME or NAME=FOLDER.

    Raises:
        LorarecError: If an adapter cannot be downloaded, a text is neither a folder nor a hub id, or there are
            two folders or two adapters of one name.
    """
    folders = [Path(text) for text in texts if Path(text).is_dir()]
    if len(folders) > 1:
        raise LorarecError(f"adapters={folders[1]} is a second folder: move its adapters to {folders[0]}")
    further: dict[str, str] = {}
    for text in texts:
        if Path(text).is_dir():
            continue
        name, _, source = text.rpartition("=")
        if not Path(source).is_dir() and HubId.parse(source) is None:
            raise LorarecError(f"adapters folder {source} does not exist: give a folder of PEFT folders, or a hub id")
        name = name or source_name(source)
        if name in further:
            raise LorarecError(f"two adapters are called {name}: tell them apart with NAME=OWNER/NAME")
        adapter_folder(source, PERSONAL_FILES)
        further[name] = source
    return AdapterPaths(next(iter(folders), None), further)
