"""Files of item ids, one per line."""

from pathlib import Path

from lorarec.data import Dataset
from lorarec.errors import LorarecError


def read_ids(path: Path) -> list[str]:
    """Read the ids of a file, one per line; empty lines are ignored.

    Raises:
        LorarecError: If the file cannot be read as text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LorarecError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    return [item for line in lines if (item := line.strip())]


def known_items(path: Path, dataset: Dataset) -> list[str]:
    """Read the ids of a file that the dataset has; other ids are ignored.

    Raises:
        LorarecError: If the file cannot be read, or has ids but none of the dataset.
    """
    listed = read_ids(path)
    known = [item for item in listed if item in dataset.titles]
    if listed and not known:
        raise LorarecError(
            f"{path} names no item of {dataset.name}: put one item id on each line, as in {next(iter(dataset.titles))}"
        )
    return known
