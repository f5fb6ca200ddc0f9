"""The kinds of folders that lorarec writes and their files, so that a folder of the user's own is never overwritten."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path


@dataclass(frozen=True)
class FolderKind:
    """One kind of folder.

    Attributes:
        name: its name in error messages.
        marker: the file by which a folder of this kind is recognised.
        others: patterns of the relative paths of all other files in the folder; `*` also matches slashes.
    """

    name: str
    marker: str
    others: tuple[str, ...] = ()

    def under(self, folder: str) -> tuple[str, ...]:
        """Return the patterns of its files when it is a subfolder of a folder of another kind."""
        return tuple(f"{folder}/{pattern}" for pattern in (self.marker, *self.others))

    def foreign_file(self, folder: Path) -> str | None:
        """Return the relative path of the first file in a folder that lorarec does not write there, or None."""
        patterns = (self.marker, *self.others)
        paths = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
        names = (path.relative_to(folder).as_posix() for path in paths)
        return next((name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)), None)


SPLIT = FolderKind("split", "split.json", ("train.parquet", "valid.parquet", "test-*.parquet"))
DATASET = FolderKind(
    "dataset", "dataset.json", ("interactions.parquet", "items.parquet", "users.parquet", *SPLIT.under("split"))
)
SAMPLE = FolderKind("sample", "ratings.parquet", ("movies.parquet", "LICENSE.txt"))
ADAPTER = FolderKind(
    "adapter",
    "lorarec.json",
    (
        "adapter_config.json",
        "adapter_model.safetensors",
        "template.j2",
        "tensorboard/events.out.tfevents.*",
        "mix_trace.json",
        "weights.png",
        "ndcg.png",
        "entropy.png",
        "entropy_by_lambda.png",
    ),
)
WEIGHTS_BY_SETTING = FolderKind("analysis", "weights_by_setting.json", ("weights_by_setting.png",))
EFFECT_OF_PROMPTS = FolderKind("analysis", "effect_of_prompts.json", ("effect_of_prompts.png",))
RECOMMENDER = FolderKind("recommender", "conventional.json", ("model.safetensors",))
ROUTER = FolderKind("router", "personal.json", ("personal.safetensors", "template.j2"))
CLICK_EVALUATION = FolderKind("evaluation", "metrics.json", ("report.md",))
EVALUATION = FolderKind("evaluation", "metrics.json", ("report.md", "ndcg.png"))
PERSONALIZED = FolderKind(
    "personal train",
    "personalize.json",
    (
        "users.parquet",
        "predictions.parquet",
        "weights.png",
        "metrics.json",
        "report.md",
        *RECOMMENDER.under("crm"),
        *ROUTER.under("personal"),
        *ROUTER.under("shared-*"),
        *ADAPTER.under("users/*"),
    ),
)
CHOSEN = FolderKind(
    "personal choose",
    "choose.json",
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
        *ADAPTER.under("constant"),
        *RECOMMENDER.under("crm"),
        *ROUTER.under("personal"),
    ),
)
INDEX = FolderKind("index", "index.json", ("index.safetensors",))
RANKING = FolderKind("recommendations", "rank.json", ("part-*.parquet",))
DEMO = FolderKind(
    "demo", "metrics.json", ("report.md", "ndcg.png", *DATASET.under("dataset"), *ADAPTER.under("adapters/*"))
)
