"""Folders of Parquet files, as Spark, Dask, DuckDB and Hive write them."""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from lorarec.errors import LorarecError

PARQUET = (".parquet", ".pq")
#: Entries by which formats other than plain Parquet are recognised, whose folders also have files that were replaced.
_OTHER_FORMATS = {"_delta_log": "a Delta", ".hoodie": "a Hudi", "version-hint.text": "an Iceberg"}


def parquet_parts(names: Iterable[Path], where: str) -> list[Path]:
    """Return the Parquet files among the files of a folder, sorted; hidden and temporary ones are left out.

    Args:
        names: The paths of the files in the folder.
        where: The name of the folder in error messages.

    Raises:
        LorarecError: There are none, or the folder is of another kind.
    """
    names = list(names)
    if Path("dataset.json") in names:
        raise LorarecError(f"{where} is already a dataset folder: use it without importing it")
    for name in names:
        other = next((_OTHER_FORMATS[part] for part in name.parts if part in _OTHER_FORMATS), None)
        if other:
            raise LorarecError(
                f"{where} is {other} table, whose folder also has files that are not part of it: write its current "
                "rows as plain Parquet files, or read it by a query of DuckDB"
            )
    # Writers hide what is unfinished, or no part of the table, by a first underscore or point.
    visible = [name for name in names if not any(part.startswith(("_", ".")) for part in name.parts)]
    parts = sorted(name for name in visible if name.suffix.lower() in PARQUET)
    if not parts:
        raise LorarecError(f"{where} is a folder without Parquet files: name a file or a folder of Parquet files")
    return parts


def scan_parquet_folder(folder: Path) -> pl.LazyFrame:
    """Scan the Parquet files of a folder; folders such as `country=DE` add a column of text.

    Raises:
        LorarecError: There are none, the folder is of another kind, or its files are in different partitions.
    """
    names = parquet_parts((path.relative_to(folder) for path in folder.rglob("*") if path.is_file()), str(folder))
    keys = [_partition(name) for name in names]
    for name, each in zip(names, keys, strict=True):
        if list(each) != list(keys[0]):
            raise LorarecError(
                f"{folder}: {names[0]} and {name} are in partitions of different columns: "
                "give a folder whose files all have the same"
            )
    parts = [folder / name for name in names]
    if not keys[0]:
        return pl.scan_parquet(parts, glob=False, hive_partitioning=False)
    return pl.scan_parquet(
        parts,
        glob=False,
        hive_partitioning=True,
        hive_schema=dict.fromkeys(keys[0], pl.String),
        try_parse_hive_dates=False,
    )


def _partition(name: Path) -> dict[str, str]:
    pairs = [part.partition("=") for part in name.parts[:-1]]
    return {unquote(key): unquote(value) for key, mark, value in pairs if mark}
