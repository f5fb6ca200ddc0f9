"""Folders and repositories of the hub from which adapters and user routers are read by name."""

import os
from collections.abc import Mapping
from pathlib import Path

from lorarec.backbone import Backbone
from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.io import FolderKind
from lorarec.lora import ADAPTER_CONFIG_FILE, adapter_folder, prompt_config, read_adapter
from lorarec.personal import PERSONAL_FILES, UserRouter
from lorarec.serving.engine import AdapterKind, LoadedAdapter, copy_to_memory

#: Minimum of the limit on the bytes of an adapter's weights, which is otherwise the size of the backbone.
MIN_LIMIT = 1 << 26


class AdapterSources:
    """List adapters and user routers, and read them by name.

    Args:
        folder: Folder of PEFT folders and of folders of `train_user_router`; None for no adapters.
        backbone: Language model of the adapters.
        dataset: Dataset whose users the user routers were trained on.
        further: Paths or hub ids of further adapters by name.

    Attributes:
        folder: Folder of PEFT folders and of folders of `train_user_router`; None for no adapters.

    Raises:
        LorarecError: If the folder does not exist, or has an adapter with the name of a further one.
    """

    def __init__(self, folder: Path | None, backbone: Backbone, dataset: Dataset, further: Mapping[str, str]) -> None:
        if folder is not None and not folder.is_dir():
            raise LorarecError(f"adapters folder {folder} does not exist: give a folder of PEFT folders")
        self.folder = folder
        self._backbone = backbone
        self._dataset = dataset
        self._further = dict(further)
        for path in self._entries():
            if path.name in further:
                raise LorarecError(f"{further[path.name]} and {path} have the same name: give one of them another")

    def available(self, loaded: Mapping[str, AdapterKind]) -> dict[str, AdapterKind]:
        """Return the further names and those in the adapters folder, sorted, and their kinds.

        Entries that cannot be read, such as a link to itself, and names that no request can hold are left out.
        """
        kinds = {path.name: _kind(path) for path in self._entries()}
        kinds |= {name: loaded.get(name) or self._kind_of_further(name) for name in self._further}
        return {name: kind for name, kind in sorted(kinds.items()) if kind}

    def _kind_of_further(self, name: str) -> AdapterKind:
        """Return the kind of a further adapter; that of one of the hub is not known before it is loaded."""
        return _kind(Path(self._further[name])) or "adapter"

    def _entries(self) -> list[Path]:
        if self.folder is None:
            return []
        try:
            names = sorted(os.listdir(self.folder))
        except OSError:
            return []
        return [self.folder / name for name in names if name.isprintable() and not name.startswith(".")]

    def read(self, name: str, version: str | None = None) -> LoadedAdapter:
        """Read an adapter or a user router into memory.

        Args:
            name: Name of the adapter.
            version: Fingerprint that it must have; None for any.

        Raises:
            LorarecError: If there is no such name, its files are not usable or of another version, or they cannot be
                downloaded.
        """
        adapter = self._read(name)
        if version is not None and adapter.fingerprint != version:
            raise LorarecError(
                f"the folder of this replica has version {adapter.fingerprint[:12]}, and the announced one is "
                f"{version[:12]}: copy that one into the folder, or load the adapter by a request, which announces it"
            )
        return adapter

    def _read(self, name: str) -> LoadedAdapter:
        available = self.available({})
        if name not in available:
            names = ", ".join(available) or "none"
            raise LorarecError(
                self.fusion_refusal(name) or f"no adapter {name!r} in the adapters folder: it has {names}"
            )
        folder = Path(self.folder or "", name)
        if name in self._further:
            folder = adapter_folder(self._further[name], PERSONAL_FILES)
        if _kind(folder) == "personal":
            router = UserRouter.load(folder, self._backbone, self._dataset)
            return LoadedAdapter(name, router.adapters, router.prompt, router.fingerprint, router)
        limit = max(MIN_LIMIT, self._backbone.model.get_memory_footprint())
        adapter = read_adapter(folder, limit=limit)
        return LoadedAdapter(name, (copy_to_memory(adapter),), prompt_config(adapter), adapter.fingerprint)

    def fusion_refusal(self, name: str) -> str | None:
        """Return why a name of the folder cannot be loaded if it is a fusion; otherwise None."""
        if any(path.name == name and (path / FolderKind.FUSION.marker).exists() for path in self._entries()):
            return f"{name!r} is a fusion, not an adapter: start the service with option fusion"
        return None


def _kind(folder: Path) -> AdapterKind | None:
    # Unlike Path.is_file, os.path.isfile does not raise for a path that cannot be read.
    if os.path.isfile(folder / ADAPTER_CONFIG_FILE):
        return "adapter"
    return "personal" if os.path.isfile(FolderKind.USER_ROUTER.marker_file(folder)) else None
