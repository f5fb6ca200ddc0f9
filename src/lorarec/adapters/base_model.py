"""Whether an adapter made elsewhere belongs to a backbone, by the base model that `adapter_config.json` names."""

import logging
import re
from pathlib import Path
from typing import Any

from lorarec.adapters.files import shown
from lorarec.backbone.load import EMBEDDED, Backbone, embedded_folder
from lorarec.errors import LorarecError

logger = logging.getLogger(__name__)

#: A model's folder in the hub's cache, and a hub id (one without an owner may as well be a folder's name).
SNAPSHOT = re.compile(r".*models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<revision>[^/]+)")
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def check_base_model(folder: Path | None, config: dict[str, Any], backbone: Backbone) -> None:
    """Refuse an adapter whose `base_model_name_or_path` is clearly another model.

    Two names are of the same model if they agree but for case, or in their last parts, since folders and mirrors are
    mostly called as the model is. Two hub ids that do not are of different models. A folder that is called otherwise
    may hold the same model, and another revision the same weights: there a warning asks the user to make sure. Nothing
    is said of an adapter that names no model.

    Raises:
        LorarecError: the adapter is of another model.
    """
    name, revision = _hub_name(config.get("base_model_name_or_path") or "")
    if not name:
        return
    known = [_hub_name(each) for each in (backbone.id, getattr(backbone.model.config, "_name_or_path", "")) if each]
    if _last(name) not in {_last(each) for each, _ in known}:
        if _is_hub_id(name) and _is_hub_id(known[0][0]):
            raise LorarecError(
                f"adapter {folder} belongs to base model {shown(name)}, not to {backbone.id}: if they are the same "
                f"model, write {backbone.id} as base_model_name_or_path in its adapter_config.json"
            )
        asked = "adapter %s was trained on %s, and whether that is %s is unknown: make sure that it is"
        logger.warning(asked, folder, shown(name), backbone.id)
        return
    revision = revision or config.get("revision")
    loaded = getattr(backbone.model.config, "_commit_hash", None) or next((each for _, each in known if each), None)
    if loaded is not None and revision not in (None, "main", loaded):
        asked = (
            "adapter %s was trained on revision %s of %s, but %s is loaded: make sure that their weights are the same"
        )
        logger.warning(asked, folder, shown(revision), shown(name), loaded)


def _hub_name(name: str) -> tuple[str, str | None]:
    """The hub id and revision of a folder of the hub's cache, `embedded` for the embedded backbone, else the name."""
    name = name.rstrip("/")
    if match := SNAPSHOT.fullmatch(name):
        return f"{match['owner']}/{match['name']}", match["revision"]
    return (EMBEDDED if name == str(embedded_folder()) else name), None


def _last(name: str) -> str:
    return name.rpartition("/")[2].casefold()


def _is_hub_id(name: str) -> bool:
    """Whether a name is of the hub or `embedded`, and not of a folder."""
    return name == EMBEDDED or (HUB_ID.fullmatch(name) is not None and not Path(name).exists())
