"""The split: training histories, validation and test cases, and the folder in which they are stored."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import polars as pl

from lorarec.data.hashing import content_hash
from lorarec.data.validation import read_parquet
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, JsonObject, new_folder, read_json, write_json

WARM, NEW_ITEM = "warm", "new-item"


@dataclass(frozen=True)
class Split:
    """A division of a dataset into training, validation and test.

    Attributes:
        train: The columns user_id and history (ids of the training items in time order).
        valid: The columns user_id, history, target and candidates (the target among items that the user never
            interacted with, in random order).
        test: Cases with the columns of `valid` for each setting, "warm" and "new-item".
        info: Contents of `split.json`: options, counts, the dataset's fingerprint and that of all frames.

    Examples:
        >>> from lorarec import Dataset, load_split
        >>> split = load_split(Dataset.load("data/shop"))
        >>> split.valid.columns, list(split.test)
        (['user_id', 'history', 'target', 'candidates'], ['warm', 'new-item'])
    """

    train: pl.DataFrame
    valid: pl.DataFrame
    test: dict[str, pl.DataFrame]
    info: JsonObject

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the content of all frames: 16 hexadecimal digits."""
        return str(self.info["fingerprint"])

    @property
    def cases(self) -> str:
        """Fingerprint of the split that the cases come from, which for a few-shot split is the whole split."""
        return str(self.info.get("few_shot", {}).get("of", self.fingerprint))

    def save(self, out: str | Path, overwrite: bool = False) -> None:
        """Write a split folder, completely or not at all: train, valid and test-SETTING as Parquet, and split.json.

        Raises:
            LorarecError: The folder exists already and `overwrite` is false, or it cannot be written.
        """
        with new_folder(out, overwrite, FolderKind.SPLIT) as folder:
            self.write(folder)

    def write(self, folder: Path) -> None:
        """Write the files of a split folder one by one into a folder, which is created if it does not exist."""
        folder.mkdir(exist_ok=True)
        self.train.write_parquet(folder / "train.parquet", compression="zstd")
        self.valid.write_parquet(folder / "valid.parquet", compression="zstd")
        for setting, cases in self.test.items():
            cases.write_parquet(folder / f"test-{setting}.parquet", compression="zstd")
        write_json(folder / "split.json", self.info)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a split folder.

        Raises:
            LorarecError: A file is missing or unreadable, or does not agree with split.json.
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
