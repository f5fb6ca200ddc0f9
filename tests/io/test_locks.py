"""Locks belong to one writer at a time."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lorarec.errors import LorarecError
from lorarec.io.artefacts import new_folder, remove_folder, write_text
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


def test_a_kill_releases_locks(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from lorarec.io.locks import locked, only_writer
with only_writer(Path({str(tmp_path)!r})), locked({str(tmp_path / "row")!r}):
    print("locked", flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"locked\n"
        with pytest.raises(LorarecError, match="another run is writing"), only_writer(tmp_path):
            pass
        with locked(tmp_path / "row", wait=False) as mine:
            assert not mine
        writer.kill()
        writer.wait()
        with only_writer(tmp_path), locked(tmp_path / "row", wait=False) as mine:
            assert mine


def test_locks_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If folders cannot be opened, other files are locked in their place, none of them in an artefact's folder."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    folder = tmp_path / "folder"
    with new_folder(folder) as made:
        (made / "file").touch()
        remove_leftovers_inside(tmp_path)
        assert made.exists()
    another = pytest.raises(LorarecError, match="another run is writing")
    with only_writer(folder), another, only_writer(folder):
        pytest.fail("both write")
    write_text(folder / "file", "text")
    remove_folder(tmp_path / "absent")
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "temporary"]
