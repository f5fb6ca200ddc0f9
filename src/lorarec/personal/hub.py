"""Personal adapters on the Hugging Face hub: upload, and the model card."""

import json
from pathlib import Path

from huggingface_hub import CommitInfo, ModelCardData

from lorarec.backbone import EMBEDDED
from lorarec.errors import LorarecError
from lorarec.io import (
    FolderKind,
    JsonObject,
    files_to_push,
    full_repo_id,
    push_files,
    read_json,
    source_name,
)
from lorarec.lora import hub_base_model
from lorarec.personal.personal_source import PERSONAL, PERSONAL_FILES, personal_folder
from lorarec.personal.saved import SETTINGS

CARD_FILE = "README.md"
UPLOADED = FolderKind("personal adapters", f"{PERSONAL}/{SETTINGS}", PERSONAL_FILES)


def push_personal_adapters(
    folder: str | Path,
    repo_id: str,
    *,
    base_model: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload personal adapters",
) -> CommitInfo:
    """Upload what a folder of personal adapters needs to be used, in one commit to the hub.

    These are the router, its bank of adapters, the click-through model and the representations of the users.
    `export_user`, `UserRouter.load` and the service load it by its id. Predictions, reports and the adapters of single
    users stay here. The uploaded files name the users by their ids.

    Args:
        folder: Path of a folder that `personalize` or `train_user_router` wrote.
        repo_id: Hub id to write to, which is created if it does not exist.
        base_model: Hub id of the backbone. It may be left out if the folder names one, or the embedded backbone.
        private: Visibility of a new repository; None for the owner's default.
        token: Access token; if None, that of HF_TOKEN or `hf auth login`.
        revision: Branch to commit to, which is created if it does not exist; None for the main branch.
        commit_message: First line of the commit's message.

    Returns:
        The commit, with its address and its hash.

    Raises:
        LorarecError: If the folder is of another kind, no one else can load its backbone, the user may not write to the
            repository, or the hub cannot be reached.
    """
    folder = personal_folder(folder)
    marker = FolderKind.USER_ROUTER.marker_file(folder).name
    if not (folder / marker).is_file():
        marker = FolderKind.PERSONALIZATION.marker
    record, settings = read_json(folder / marker), read_json(folder / PERSONAL / SETTINGS)
    recorded = str(settings["backbone"]["id"])
    if base_model is None and recorded != EMBEDDED and hub_base_model({"base_model_name_or_path": recorded}) is None:
        raise LorarecError(
            f"{folder} names the backbone {recorded}, which is not on the hub: push it by Backbone.push_to_hub and "
            "give its hub id as base_model"
        )
    repo_id = full_repo_id(repo_id, token)
    files = files_to_push(folder, UPLOADED)
    base_model = base_model or recorded
    if base_model != recorded:
        for part in (record, settings, settings["personal"]["record"]):
            part["backbone"]["id"] = base_model
        files |= {marker: _json(record), f"{PERSONAL}/{SETTINGS}": _json(settings)}
    files[CARD_FILE] = _card(record, settings, repo_id, base_model).encode()
    return push_files(
        files,
        UPLOADED,
        repo_id,
        private=private,
        token=token,
        revision=revision,
        commit_message=commit_message,
    )


def _json(contents: JsonObject) -> bytes:
    return json.dumps(contents, indent=2, ensure_ascii=False).encode()


def _card(record: JsonObject, settings: JsonObject, repo_id: str, base_model: str) -> str:
    on_hub = hub_base_model({"base_model_name_or_path": base_model})
    datasets = record["datasets"]
    data = ModelCardData(
        base_model=on_hub,
        base_model_relation=on_hub and "adapter",
        library_name="lorarec",
        tags=["lorarec", "recommendation", "lora"],
        datasets=sorted({each["hub_id"] for each in datasets if "hub_id" in each}) or None,
    )
    names = ", ".join(str(each["name"]) for each in datasets)
    return f"""---
{data.to_yaml()}
---

# {source_name(repo_id)}

{len(settings["personal"]["names"])} LoRA adapters of {base_model} that a router mixes for each user of {names}. The
files name these users by their ids.

```sh
lorarec personal export {repo_id} --user ID --out adapters/user
```
"""
