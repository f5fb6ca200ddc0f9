"""The Split: who is trained on, validated on and tested on, and the folder that holds it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import polars as pl

from lorarec.data.dataset import read_parquet
from lorarec.data.hashing import content_hash
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, new_folder, read_json, write_json

WARM, NEW_ITEM = "warm", "new-item"


@dataclass(frozen=True)
class Split:
    """One division of a dataset; item ids throughout.

    Attributes:
        train: user_id, history (training item ids in time order).
        valid: user_id, history, target, candidates (the target among untouched items, in random order).
        test: setting ("warm", "new-item") -> the columns of `valid`.
        info: protocol, its options, counts, the dataset's fingerprint and the fingerprint of all frames.
    """

    train: pl.DataFrame
    valid: pl.DataFrame
    test: dict[str, pl.DataFrame]
    info: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over the content of all frames."""
        return str(self.info["fingerprint"])

    @property
    def cases(self) -> str:
        """Fingerprint of the split whose validation and test cases these are: of the whole one for a few-shot split."""
        return str(self.info.get("few_shot", {}).get("of", self.fingerprint))

    def save(self, out: str | Path, overwrite: bool = False) -> None:
        """Write the split folder, whole or not at all: train, valid and test-SETTING as Parquet, and split.json."""
        with new_folder(out, overwrite, FolderKind.SPLIT) as folder:
            self.train.write_parquet(folder / "train.parquet", compression="zstd")
            self.valid.write_parquet(folder / "valid.parquet", compression="zstd")
            for setting, cases in self.test.items():
                cases.write_parquet(folder / f"test-{setting}.parquet", compression="zstd")
            write_json(folder / "split.json", self.info)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a split folder.

        Raises:
            LorarecError: a file is missing, unreadable, or does not belong to split.json.
        """
        folder = Path(folder)
        info = read_json(folder / "split.json")
        if not isinstance(info, dict) or not {"options", "settings", "dataset", "fingerprint"} <= info.keys():
            raise LorarecError(
                f"{folder / 'split.json'} does not describe a split: draw it again with `lorarec data split`"
            )
        train, valid = read_parquet(folder / "train.parquet"), read_parquet(folder / "valid.parquet")
        test = {setting: read_parquet(folder / f"test-{setting}.parquet") for setting in info["settings"]}
        if content_hash(train, valid, *test.values()) != info["fingerprint"]:
            raise LorarecError(
                f"{folder}: the tables are not those of split.json: draw it again with `lorarec data split`"
            )
        return cls(train, valid, test, info)
