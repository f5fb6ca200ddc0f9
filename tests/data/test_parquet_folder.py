"""Folders of Parquet files."""

from pathlib import Path

import polars as pl
import pytest

from lorarec.data.parquet_folder import parquet_parts, scan_parquet_folder
from lorarec.errors import LorarecError


def _write(path: Path, **columns: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns).write_parquet(path)


def test_partitions_are_columns_of_text(tmp_path: Path) -> None:
    _write(tmp_path / "user=007" / "day=2024-05-01" / "a.parquet", item=[1, 2])
    _write(tmp_path / "user=a%20b%2Fc" / "day=2024-05-02" / "b.parquet", item=[3])
    rows = scan_parquet_folder(tmp_path).select("user", "day", "item").collect().rows()
    assert rows == [("007", "2024-05-01", 1), ("007", "2024-05-01", 2), ("a b/c", "2024-05-02", 3)]


def test_partitions_as_polars_writes_them(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["a/b", "c d", None], "item": [1, 2, 3]})
    frame.write_parquet(pl.PartitionBy(tmp_path, key="user", include_key=False), mkdir=True)
    assert sorted(scan_parquet_folder(tmp_path).select("item", "user").collect().rows()) == [
        (1, "a/b"),
        (2, "c d"),
        (3, None),
    ]


def test_a_partition_that_the_files_have_as_well(tmp_path: Path) -> None:
    _write(tmp_path / "user=1" / "a.parquet", user=["1"], item=[1])
    assert scan_parquet_folder(tmp_path).select("user", "item").collect().rows() == [("1", 1)]


def test_hidden_and_unfinished_files_are_left_out(tmp_path: Path) -> None:
    _write(tmp_path / "part-0.PARQUET", item=[1])
    for name in ("_temporary/0/part-1.parquet", ".part-2.parquet", "_metadata.parquet"):
        _write(tmp_path / name, item=[2])
    assert scan_parquet_folder(tmp_path).collect().rows() == [(1,)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["readme.md"], "shop is a folder without Parquet files"),
        (["dataset.json", "items.parquet"], "shop is already a dataset folder"),
        (["a.parquet", "_delta_log/0.json"], "shop is a Delta table"),
        (["data/a.parquet", "metadata/version-hint.text"], "shop is an Iceberg table"),
    ],
)
def test_folders_of_another_kind(names: list[str], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        parquet_parts(map(Path, names), "shop")


def test_files_in_different_partitions(tmp_path: Path) -> None:
    _write(tmp_path / "user=1" / "a.parquet", item=[1])
    _write(tmp_path / "b.parquet", item=[1])
    with pytest.raises(LorarecError, match=r"b\.parquet and .*a\.parquet are in partitions of different columns"):
        scan_parquet_folder(tmp_path)
