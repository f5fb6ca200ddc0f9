"""Check that an adapter made elsewhere belongs to a backbone, by the base model named in `adapter_config.json`."""

import logging
import os
import re
from pathlib import Path

from lorarec.backbone import EMBEDDED, Backbone, embedded_folder
from lorarec.errors import LorarecError
from lorarec.io import HubId, JsonObject
from lorarec.lora.safe_files import quoted

logger = logging.getLogger(__name__)

#: A hub id with its owner. A name without an owner may as well be that of a folder.
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def check_base_model(folder: Path | None, config: JsonObject, backbone: Backbone) -> None:
    """Refuse an adapter whose `base_model_name_or_path` is clearly another model.

    Two names refer to the same model if their last parts are equal up to case, since folders and mirrors usually have
    the name of the model. Two hub ids with different last parts refer to different models. A folder with another name
    may hold the same model, and another revision may have the same weights; a warning is logged in these two cases. An
    adapter that names no model is accepted.

    Raises:
        LorarecError: If the adapter belongs to another model.
    """
    name, revision = _hub_name(config.get("base_model_name_or_path") or "")
    if not name:
        return
    names = (backbone.id, backbone.base_model, getattr(backbone.model.config, "_name_or_path", ""))
    known = [_hub_name(each) for each in names if each]
    if _last(name) not in {_last(each) for each, _ in known}:
        if _is_hub_id(name) and _is_hub_id(known[0][0]):
            raise LorarecError(
                f"adapter {folder} belongs to base model {quoted(name)}, not to {backbone.id}: if they are the same "
                f"model, write {backbone.id} as base_model_name_or_path in its adapter_config.json"
            )
        message = "adapter %s names the base model %s, which may differ from %s: make sure that they are the same model"
        logger.warning(message, folder, quoted(name), backbone.id)
        return
    revision = revision or config.get("revision")
    loaded = getattr(backbone.model.config, "_commit_hash", None) or next((each for _, each in known if each), None)
    if loaded is not None and revision not in (None, "main", loaded):
        message = (
            "adapter %s was trained on revision %s of %s, but %s is loaded: make sure that their weights are the same"
        )
        logger.warning(message, folder, quoted(revision), quoted(name), loaded)


def _hub_name(name: str) -> tuple[str, str | None]:
    """Return id and revision of a folder of the hub's cache, `embedded` for the embedded backbone, else the name."""
    name = name.rstrip("/")
    if cached := HubId.of_folder(name):
        return cached.repo_id, cached.revision
    return (EMBEDDED if name == str(embedded_folder()) else name), None


def hub_base_model(config: JsonObject) -> str | None:
    """Return the hub id of the base model that PEFT's settings name, or None if they name a folder or nothing."""
    name, _ = _hub_name(config.get("base_model_name_or_path") or "")
    return name if name != EMBEDDED and _is_hub_id(name) else None


def _last(name: str) -> str:
    return name.rpartition("/")[2].casefold()


def _is_hub_id(name: str) -> bool:
    """Return whether a name is a hub id or `embedded`, and not the path of a folder."""
    # Unlike Path.exists, os.path.exists does not raise for a name that is too long.
    return name == EMBEDDED or (HUB_ID.fullmatch(name) is not None and not os.path.exists(name))
