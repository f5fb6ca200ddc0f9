"""Folders of runs: created, continued, and refused to other runs."""

from pathlib import Path
from typing import Any

import pytest

from lorarec.errors import LorarecError
from lorarec.io import RunDir, created_folder, run_dir
from lorarec.io.artefacts import read_json

IDENTITY: dict[str, Any] = {"dataset": "shop", "options": {"lr": 0.1, "layers": ("q", "v")}}


def test_the_same_run_continues(tmp_path: Path) -> None:
    RunDir(tmp_path / "out", IDENTITY).open()
    (tmp_path / "out" / "part-1").touch()
    again = RunDir(tmp_path / "out", dict(IDENTITY))
    again.open()
    assert again.matches()
    assert [path.name for path in again.finished("part-*")] == ["part-1"]


@pytest.mark.parametrize(
    ("identity", "difference"),
    [
        (IDENTITY | {"dataset": "toys"}, "dataset was shop and is now toys"),
        (IDENTITY | {"options": {"lr": 0.2, "layers": ["q", "v"]}}, r"options\.lr was 0\.1 and is now 0\.2"),
        (IDENTITY | {"options": {"lr": 0.1}}, r"options\.layers was \['q', 'v'\] and is now None"),
        ({"dataset": "toys", "options": {}}, r"dataset was .* \(also different: options\.lr, options\.layers\)"),
    ],
)
def test_another_run_is_refused_and_the_difference_named(tmp_path: Path, identity: dict, difference: str) -> None:
    RunDir(tmp_path / "out", IDENTITY).open()
    other = RunDir(tmp_path / "out", identity)
    assert not other.matches()
    with pytest.raises(LorarecError, match=f"out holds another run: {difference}: choose another folder"):
        other.open()
    assert read_json(tmp_path / "out" / "run.json")["dataset"] == "shop"


def test_an_entry_of_none_is_the_same_as_a_missing_one(tmp_path: Path) -> None:
    with_none = {**IDENTITY, "limit": None, "options": {**IDENTITY["options"], "proximal": None}}
    RunDir(tmp_path / "before", IDENTITY).open()
    assert RunDir(tmp_path / "before", with_none).matches()
    RunDir(tmp_path / "after", with_none).open()
    assert RunDir(tmp_path / "after", IDENTITY).matches()
    assert not RunDir(tmp_path / "after", {**with_none, "limit": 0}).matches()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    run_dir = RunDir(tmp_path, IDENTITY, kind="experiment")
    with pytest.raises(LorarecError, match=r"is no experiment folder \(it has no run\.json\)"):
        run_dir.open()
    with pytest.raises(LorarecError, match=r"mine\.txt exists already"):
        RunDir(tmp_path / "mine.txt", IDENTITY).open()
    assert not run_dir.matches()


def test_a_record_with_details(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "out", IDENTITY, record="rank.json", key="made_of", kind="ranking")
    run_dir.open({"complete": False})
    record = read_json(tmp_path / "out" / "rank.json")
    assert record == {"made_of": {"dataset": "shop", "options": {"lr": 0.1, "layers": ["q", "v"]}}, "complete": False}
    run_dir.open({"complete": True})
    assert read_json(tmp_path / "out" / "rank.json") == record
    (tmp_path / "out" / "rank.json").write_text("[]")
    with pytest.raises(LorarecError, match=r"rank\.json does not say which ranking"):
        run_dir.open()
    assert not run_dir.matches()


def test_a_first_write_that_fails_leaves_no_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise LorarecError("cannot write to run.json: No space left on device")

    monkeypatch.setattr(run_dir, "write_json", full)
    (tmp_path / "mine").mkdir()
    for folder in ("mine", "runs/one"):
        with pytest.raises(LorarecError, match="No space left"):
            RunDir(tmp_path / folder, IDENTITY).open()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_is_made_for_a_block_stays_if_there_is_a_file_in_it(tmp_path: Path) -> None:
    def fail(name: str, files: list[str]) -> None:
        with created_folder(tmp_path / name):
            for file in files:
                (tmp_path / name / file).touch()
            raise KeyboardInterrupt

    for name, files in (("empty", []), ("filled", ["part"])):
        with pytest.raises(KeyboardInterrupt):
            fail(name, files)
    assert [path.name for path in tmp_path.iterdir()] == ["filled"]
