"""Datasets on the Hugging Face hub: download, upload, and the dataset card."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

import huggingface_hub

from lorarec.io import (
    HUB_PREFIX,
    FolderKind,
    JsonObject,
    files_to_push,
    full_repo_id,
    local_folder,
    push_files,
    read_json,
)

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

#: Patterns of the files of a repository that are downloaded.
DOWNLOADED = ("dataset.json", "*.parquet", "split/*")
CARD_FILE = "README.md"
#: Identifiers of licences that the hub knows; other terms are named by their text.
LICENCES = ("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "odbl")
#: Upper bounds of the numbers of rows that the hub's categories of size have.
SIZES = ((10**3, "1K"), (10**4, "10K"), (10**5, "100K"), (10**6, "1M"), (10**7, "10M"), (10**8, "100M"))
TABLES = ("interactions", "items", "users")


def dataset_folder(folder: str | Path) -> Path:
    """Return the path of a dataset folder; for a hub id with the prefix `hub:` it is downloaded into the hub's cache.

    Without the prefix `owner/name` is a path.

    Raises:
        LorarecError: If the dataset cannot be downloaded.
    """
    if str(folder).startswith(HUB_PREFIX):
        return local_folder(folder, DOWNLOADED, "dataset", "dataset")
    return Path(folder)


class PushToHubMixin:
    """The upload of a dataset to the hub."""

    folder: Path | None

    def save(self, out: str | Path, overwrite: bool = False) -> Self:
        """Write a dataset folder."""
        raise NotImplementedError

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload dataset",
    ) -> "CommitInfo":
        """Upload the dataset, with its stored split and a dataset card, in one commit to the hub.

        `Dataset.load("hub:owner/name")` reads it, and `datasets.load_dataset` reads each of its tables as a
        configuration. What a dataset in the repository had and this one does not have is deleted by the same commit.

        Args:
            repo_id: Hub id to write to, which is created if it does not exist.
            private: Visibility of a new repository; None for the owner's default.
            token: Access token; if None, that of HF_TOKEN or `hf auth login`.
            revision: Branch to commit to, which is created if it does not exist; None for the main branch.
            commit_message: First line of the commit's message.

        Returns:
            The commit, with its address and its hash.

        Raises:
            LorarecError: If the user may not write to the repository, or the hub cannot be reached.
        """
        repo_id = full_repo_id(repo_id, token)
        with TemporaryDirectory() as temporary:
            saved = Path(temporary) / "dataset"
            self.save(saved)
            return push_files(
                _with_card(saved, self.folder, repo_id),
                FolderKind.DATASET,
                repo_id,
                repo_type="dataset",
                private=private,
                token=token,
                revision=revision,
                commit_message=commit_message,
            )


def _with_card(saved: Path, origin: Path | None, repo_id: str) -> dict[str, Path | bytes]:
    """Return the files of a dataset folder as they are uploaded, with the stored split and the card.

    Args:
        saved: Folder of the dataset as it is uploaded.
        origin: Folder that the dataset was loaded from; its split is uploaded if it was drawn from this dataset.
        repo_id: Hub id of the repository.
    """
    info = read_json(saved / FolderKind.DATASET.marker)
    files = files_to_push(saved, FolderKind.DATASET)
    if origin is not None and (origin / "split" / FolderKind.SPLIT.marker).is_file():
        split = origin / "split"
        if read_json(split / FolderKind.SPLIT.marker).get("dataset") == info["fingerprint"]:
            files |= {f"split/{name}": path for name, path in files_to_push(split, FolderKind.SPLIT).items()}
    return {**files, CARD_FILE: dataset_card(info, "users.parquet" in files, repo_id).encode()}


def dataset_card(info: JsonObject, has_users: bool, repo_id: str) -> str:
    """Return the card of a dataset; each of its tables is a configuration that `datasets.load_dataset` reads.

    Args:
        info: Contents of `dataset.json`.
        has_users: Whether there is a table of users.
        repo_id: Hub id of the repository.
    """
    licence = str(info.get("licence") or "")
    known = re.sub(r"\s+", "-", licence.strip().lower())
    tables = TABLES if has_users else TABLES[:2]
    counts = info["counts"]
    data = huggingface_hub.DatasetCardData(
        pretty_name=str(info["name"]),
        tags=["lorarec", "recommendation"],
        task_categories=["text-ranking"],
        size_categories=[_size(counts["interactions"])],
        configs=[{"config_name": table, "data_files": f"{table}.parquet"} for table in tables],
        license=known if known in LICENCES else "other" if known else None,
        license_name=_slug(licence) if known and known not in LICENCES else None,
    )
    filters = "".join(f"- {each}\n" for each in info.get("filters") or ())
    return f"""---
{data.to_yaml()}
---

# {info["name"]}

Interactions of users with items, and the titles of the items, as a dataset of
[lorarec](https://github.com/lorarec/lorarec):

```python
from lorarec import Dataset

dataset = Dataset.load("hub:{repo_id}")
```

| users | items | interactions | fingerprint |
|---|---|---|---|
| {counts["users"]:,} | {counts["items"]:,} | {counts["interactions"]:,} | {info["fingerprint"]} |
""" + "".join(
        f"\n{name}: {text}\n"
        for name, text in (("Terms of use", licence), ("Filters", f"\n\n{filters}"))
        if text.strip()
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:60] or "terms-of-use"


def _size(rows: int) -> str:
    lower = "n"
    for bound, name in SIZES:
        if rows < bound:
            return f"n<{name}" if lower == "n" else f"{lower}<n<{name}"
        lower = name
    return f"n>{lower}"
