"""Locks belong to one writer at a time."""

from pathlib import Path

import pytest

from lorarec.errors import LorarecError
from lorarec.io.locks import locked, only_writer, remove_leftovers_inside, temporary_sibling


def test_a_lock_is_had_by_one(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "row"
    with locked(path, wait=False) as first, locked(path, wait=False) as second:
        assert first
        assert not second
    with locked(path, wait=False) as again:
        assert again


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    another = pytest.raises(LorarecError, match=f"another run is writing to {tmp_path}")
    with only_writer(tmp_path), another, only_writer(tmp_path):
        pytest.fail("both write")
    with only_writer(tmp_path):
        pass


def test_only_files_without_a_writer_are_tidied(tmp_path: Path) -> None:
    living, _ = temporary_sibling(tmp_path / "part-1", is_folder=False)
    (tmp_path / ".part-2.abcdefgh.tmp").touch()
    (tmp_path / "part-3").touch()
    remove_leftovers_inside(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living.name, "part-3"])
