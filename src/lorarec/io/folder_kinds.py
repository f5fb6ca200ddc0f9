"""The kinds of folders that lorarec writes and their files, so that a folder of the user's own is never overwritten."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class FolderKind:
    """One kind of folder that lorarec writes, such as `FolderKind.ADAPTER`.

    Attributes:
        name: Name of the kind in error messages.
        marker: Relative path of the file by which a folder of this kind is recognised.
        others: Patterns of the relative paths of all other files in the folder; `*` also matches slashes.
        is_flat: Whether only files in the folder itself belong to it, and none in subfolders.
        former_marker: Relative path of the marker in folders of version 0.1; empty if it is the same.
    """

    name: str
    marker: str
    others: tuple[str, ...] = ()
    is_flat: bool = False
    former_marker: str = ""

    SPLIT: ClassVar["FolderKind"]
    DATASET: ClassVar["FolderKind"]
    SAMPLE: ClassVar["FolderKind"]
    ADAPTER: ClassVar["FolderKind"]
    BACKBONE: ClassVar["FolderKind"]
    MERGED: ClassVar["FolderKind"]
    CTR_MODEL: ClassVar["FolderKind"]
    PERSONAL_LORA: ClassVar["FolderKind"]
    CLICK_EVALUATION: ClassVar["FolderKind"]
    EVALUATION: ClassVar["FolderKind"]
    PERSONALIZATION: ClassVar["FolderKind"]
    USER_ROUTER: ClassVar["FolderKind"]
    INDEX: ClassVar["FolderKind"]
    FUSION: ClassVar["FolderKind"]
    RECOMMENDATIONS: ClassVar["FolderKind"]
    DEMO: ClassVar["FolderKind"]

    def under(self, folder: str) -> tuple[str, ...]:
        """Return the patterns of the files when they are in a subfolder of a folder of another kind."""
        return tuple(f"{folder}/{pattern}" for pattern in (self.marker, *self.others))

    def marker_file(self, folder: Path) -> Path:
        """Return the path of the marker in a folder; the former one where the folder has only that."""
        marker, former = folder / self.marker, folder / self.former_marker
        return former if self.former_marker and os.path.lexists(former) and not os.path.lexists(marker) else marker

    def foreign_file(self, folder: Path) -> str | None:
        """Return the relative path of the first file in a folder that lorarec does not write there, or None."""
        return next((name for name in _files(folder) if not self.has_file(name)), None)

    def has_file(self, name: str) -> bool:
        """Return whether lorarec writes a file of this relative path into folders of this kind."""
        if self.is_flat and "/" in name:
            return False
        return name == self.former_marker or any(fnmatchcase(name, pattern) for pattern in (self.marker, *self.others))

    def files(self, folder: Path) -> list[str]:
        """Return the sorted relative paths of the files in a folder that lorarec writes there."""
        return [name for name in _files(folder) if self.has_file(name)]


def _files(folder: Path) -> Iterator[str]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    return (path.relative_to(folder).as_posix() for path in paths)


FolderKind.SPLIT = FolderKind("split", "split.json", ("train.parquet", "valid.parquet", "test-*.parquet"))
FolderKind.DATASET = FolderKind(
    "dataset",
    "dataset.json",
    ("interactions.parquet", "items.parquet", "users.parquet", "README.md", *FolderKind.SPLIT.under("split")),
)
FolderKind.SAMPLE = FolderKind("sample", "ratings.parquet", ("movies.parquet", "LICENSE.txt"))
FolderKind.ADAPTER = FolderKind(
    "adapter",
    "lorarec.json",
    (
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "template.j2",
        "tensorboard/events.out.tfevents.*",
        "mix_trace.json",
        "weights.png",
        "ndcg.png",
        "entropy.png",
        "entropy_by_lambda.png",
    ),
)
#: A folder of Transformers, which lorarec uploads and does not write itself.
FolderKind.BACKBONE = FolderKind(
    "backbone", "config.json", ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md"), is_flat=True
)
FolderKind.MERGED = FolderKind(
    "merged model",
    "merged.json",
    (
        "config.json",
        "generation_config.json",
        "model*.safetensors",
        "model.safetensors.index.json",
        "tokenizer*",
        "special_tokens_map.json",
        "chat_template.jinja",
        "README.md",
    ),
)
FolderKind.CTR_MODEL = FolderKind("click-through model", "conventional.json", ("model.safetensors",))
FolderKind.PERSONAL_LORA = FolderKind("personal LoRA", "personal.json", ("personal.safetensors", "template.j2"))
FolderKind.CLICK_EVALUATION = FolderKind("evaluation", "metrics.json", ("report.md",))
FolderKind.EVALUATION = FolderKind("evaluation", "metrics.json", ("report.md", "ndcg.png"))
FolderKind.PERSONALIZATION = FolderKind(
    "personal train",
    "personalize.json",
    (
        "users.parquet",
        "predictions.parquet",
        "weights.png",
        "metrics.json",
        "report.md",
        "tensorboard/events.out.tfevents.*",
        *FolderKind.CTR_MODEL.under("crm"),
        *FolderKind.PERSONAL_LORA.under("personal"),
        *FolderKind.PERSONAL_LORA.under("shared-*"),
        *FolderKind.ADAPTER.under("users/*"),
    ),
)
FolderKind.USER_ROUTER = FolderKind(
    "personal train-router",
    "user_router.json",
    (
        "template.j2",
        "users.parquet",
        "titles.parquet",
        "metrics.json",
        "report.md",
        "ndcg.png",
        "adapter_preference.json",
        "adapter_preference.png",
        "leaning.json",  # names in version 0.1
        "leaning.png",
        "tracked_runs.json",
        "tensorboard/events.out.tfevents.*",
        *FolderKind.ADAPTER.under("constant"),
        *FolderKind.CTR_MODEL.under("crm"),
        *FolderKind.PERSONAL_LORA.under("personal"),
    ),
    former_marker="choose.json",
)
FolderKind.INDEX = FolderKind("index", "index.json", ("index.safetensors",))
FolderKind.FUSION = FolderKind("fusion", "fusion.json", ("fusion.safetensors", *FolderKind.ADAPTER.under("adapters/*")))
FolderKind.RECOMMENDATIONS = FolderKind("recommendations", "rank.json", ("part-*.parquet",))
FolderKind.DEMO = FolderKind(
    "demo",
    "metrics.json",
    (
        "report.md",
        "ndcg.png",
        *FolderKind.DATASET.under("dataset"),
        *FolderKind.ADAPTER.under("adapters/*"),
        *FolderKind.FUSION.under("fusion"),
    ),
)
