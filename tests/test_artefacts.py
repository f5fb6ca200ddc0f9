"""What is written is there whole, or what was there before is."""

from pathlib import Path

import pytest

from lorarec.artefacts import (
    file_fingerprint,
    locked,
    new_file,
    new_folder,
    read_json,
    refuse_existing,
    write_json,
    write_text,
)
from lorarec.errors import LorarecError


def _break_off(path: Path) -> None:
    path.write_text("half of")
    raise RuntimeError


def test_a_write_that_fails_leaves_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_text(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "after \ud800")  # half of a character: found out while it is written
    with pytest.raises(RuntimeError), new_file(path) as temporary:
        _break_off(temporary)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_keeps_the_file_that_it_opened(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_text(path, "before")
    with path.open() as reader:
        write_text(path, "after")
        assert reader.read() == "before"
    assert path.read_text() == "after"


@pytest.mark.parametrize("place", ["missing/report.md", "file/report.md", "folder"])
def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(LorarecError, match=f"cannot write .*{place}"):
        write_text(tmp_path / place, "text")
    assert not list(tmp_path.glob("**/.*"))


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"title": "Amélie", "weights": [0.25, None], "nested": {"seed": 42}}
    write_json(tmp_path / "record.json", value)
    assert read_json(tmp_path / "record.json") == value
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(LorarecError, match="not readable JSON"):
        read_json(tmp_path / "record.json")
    with pytest.raises(LorarecError, match="does not exist"):
        read_json(tmp_path / "none.json")


def test_a_folder_that_fails_is_not_there_and_spares_the_former(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "adapter"
    with pytest.raises(RuntimeError), new_folder(out) as folder:
        _break_off(folder / "half")
    assert not list(out.parent.iterdir())
    with new_folder(out) as folder:
        (folder / "first").touch()
    with pytest.raises(LorarecError, match=r"exists already.*--overwrite"), new_folder(out):
        pass
    with pytest.raises(RuntimeError), new_folder(out, overwrite=True):
        raise RuntimeError
    assert [path.name for path in out.iterdir()] == ["first"]
    with new_folder(out, overwrite=True) as folder:
        (folder / "second").touch()
    assert [path.name for path in out.iterdir()] == ["second"]


def test_an_empty_folder_is_free(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "none")
    refuse_existing(tmp_path)
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(LorarecError, match="exists already"):
            refuse_existing(taken)


def test_a_lock_is_had_by_one(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "row"
    with locked(path, wait=False) as first, locked(path, wait=False) as second:
        assert first
        assert not second
    with locked(path, wait=False) as again:
        assert again


def test_a_fingerprint_is_of_contents_and_their_order(tmp_path: Path) -> None:
    one, two, same = tmp_path / "one", tmp_path / "two", tmp_path / "same"
    one.write_text("1")
    two.write_text("2")
    same.write_text("1")
    assert file_fingerprint(one, two) == file_fingerprint(same, two)
    assert file_fingerprint(one, two) != file_fingerprint(two, one)
