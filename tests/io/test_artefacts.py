"""Artefacts are written completely, or the earlier ones remain."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lorarec.errors import LorarecError
from lorarec.io.artefacts import (
    file_fingerprint,
    new_file,
    new_folder,
    read_json,
    refuse_existing,
    remove_folder,
    write_json,
    write_text,
)
from lorarec.io.folder_kinds import FolderKind

BOX = FolderKind("box", "box.json", ("things/*/a.txt",))


def _box(out: Path, content: str) -> None:
    with new_folder(out) as folder:
        (folder / "box.json").write_text(content)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _break_off(path: Path) -> None:
    path.write_text("half of")
    raise RuntimeError


def test_a_write_that_fails_leaves_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_text(path, "before")
    with pytest.raises(LorarecError, match="is not UTF-8 text"):
        write_text(path, "after \ud800")  # half of a character: an error in writing
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
    out = tmp_path / "deep" / "box"
    with pytest.raises(RuntimeError), new_folder(out) as folder:
        _break_off(folder / "half")
    assert not list(out.parent.iterdir())
    with new_folder(out) as folder:
        (folder / "box.json").touch()
    with pytest.raises(LorarecError, match=r"exists already.*overwrite=True"), new_folder(out):
        pass
    with pytest.raises(RuntimeError), new_folder(out, True, BOX):
        raise RuntimeError
    assert _names(out) == ["box.json"]
    with new_folder(out, True, BOX) as folder:
        (folder / "box.json").touch()
        (folder / "things" / "one").mkdir(parents=True)
        (folder / "things" / "one" / "a.txt").touch()
    assert _names(out) == ["box.json", "things"]
    assert _names(out.parent) == ["box"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_the_former_folder_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr("lorarec.io.artefacts.exchange", lambda *_: False)
    out = tmp_path / "box"
    _box(out, "before")
    with new_folder(out, True, BOX) as folder:
        (folder / "box.json").write_text("after")
        assert (out / "box.json").read_text() == "before"
    assert (out / "box.json").read_text() == "after"
    assert _names(tmp_path) == ["box"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_appears_meanwhile_is_not_removed(tmp_path: Path, overwrite: bool) -> None:
    out = tmp_path / "box"

    def appear() -> None:
        out.mkdir()
        (out / "thesis.tex").write_text("of somebody else")

    with pytest.raises(LorarecError, match=r"box (was created|is no box folder)"), new_folder(out, overwrite, BOX):
        appear()
    assert (out / "thesis.tex").read_text() == "of somebody else"
    assert _names(tmp_path) == ["box"]


def test_a_file_that_appears_meanwhile_is_not_removed(tmp_path: Path) -> None:
    out = tmp_path / "box"
    with pytest.raises(LorarecError, match="box was created by another process"), new_folder(out):
        out.write_text("of somebody else")
    assert out.read_text() == "of somebody else"


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["thesis.tex"], "is no box folder"),
        (["adapter_config.json"], "is no box folder"),
        (["box.json", "notes.txt"], "contains notes.txt"),
        (["box.json", ".hidden"], "contains .hidden"),
        (["box.json", "things/one/b.png"], "contains things/one/b.png"),
        (["box.json", "other/box.json"], "contains other/box.json"),
    ],
)
def test_only_what_lorarec_wrote_is_overwritten(tmp_path: Path, files: list[str], named: str) -> None:
    out = tmp_path / "box"
    for name in files:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    with pytest.raises(LorarecError, match=named):
        refuse_existing(out, True, BOX)
    with pytest.raises(LorarecError, match=named), new_folder(out, True, BOX):
        pytest.fail("the work was begun")
    assert all((out / name).exists() for name in files)


def test_a_file_is_not_overwritten_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "box").write_text("mine")
    with pytest.raises(LorarecError, match="box is no box folder"):
        refuse_existing(tmp_path / "box", True, BOX)


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    for out in ("file/new", "file/deeper/new"):
        with pytest.raises(LorarecError, match=f"cannot write to {out}: file is a file: choose another folder"):
            refuse_existing(out)
    refuse_existing("deep/er/new")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write anywhere
    with pytest.raises(LorarecError, match=r"cannot write to deep/er/new: \. is read-only for this user"):
        refuse_existing("deep/er/new")
    assert _names(tmp_path) == ["file"]


def test_a_link_stays_and_its_folder_is_replaced(tmp_path: Path) -> None:
    _box(tmp_path / "version-1", "before")
    (tmp_path / "current").symlink_to("version-1")
    with new_folder(tmp_path / "current", True, BOX) as folder:
        (folder / "box.json").write_text("after")
    assert (tmp_path / "current").is_symlink()
    assert (tmp_path / "version-1" / "box.json").read_text() == "after"
    assert _names(tmp_path) == ["current", "version-1"]


@pytest.mark.skipif(sys.platform != "linux", reason="the umask is read on Linux only")
@pytest.mark.parametrize("umask", [0o022, 0o007, 0o077])
def test_files_have_the_permissions_of_the_umask(tmp_path: Path, umask: int) -> None:
    former = os.umask(umask)
    try:
        _write_adapter(tmp_path)
    finally:
        os.umask(former)
    made = tmp_path / "adapter"
    assert [each.stat().st_mode & 0o777 for each in (made, made / "inner")] == [0o777 & ~umask] * 2
    for path in (made / "inner" / "adapter.safetensors", made / "adapter.json", tmp_path / "report.md"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def _write_adapter(folder: Path) -> None:
    """Write a folder and a file, some of whose parts are made with other permissions."""
    with new_folder(folder / "adapter") as made:
        (made / "inner").mkdir(0o700)
        save_file({"weight": np.zeros(2)}, made / "inner" / "adapter.safetensors")
        (made / "adapter.json").touch(0o600)
        (made / "link").symlink_to("nowhere")
    with new_file(folder / "report.md") as file:
        file.write_text("Report")


def test_texts_name_the_output_folder(tmp_path: Path) -> None:
    out = tmp_path / 'a "b"'
    with new_folder(out) as folder:
        write_json(folder / "box.json", {"path": str(folder / "things")})
        (folder / "report.md").write_text(f"See {folder}, {str(folder).replace('_', chr(92) + '_')}.")
    assert read_json(out / "box.json") == {"path": str(out / "things")}
    assert (out / "report.md").read_text() == f"See {out}, {str(out).replace('_', chr(92) + '_')}."


def _killed(work: Callable[[], object]) -> None:
    """Do the work in a child process, which is killed where the work ends by `os.kill`."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_leftovers_of_a_killed_run_are_reported_and_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out, other = tmp_path / "box", tmp_path / "other.json"

    def begin() -> None:
        with new_folder(out) as folder, new_file(other) as file:
            (folder / "box.json").touch()
            file.touch()
            _die()

    _killed(begin)
    assert len(_names(tmp_path)) == 2
    (tmp_path / ".box.notes.tmp").touch()  # not a name that lorarec gives
    _box(out, "whole")
    write_text(other, "whole")
    assert _names(tmp_path) == [".box.notes.tmp", "box", "other.json"]
    assert [record.getMessage().split("/")[-1].split(".")[1] for record in caplog.records] == ["box", "other"]
    assert all("which an interrupted run left" in record.getMessage() for record in caplog.records)


def test_files_that_a_run_still_writes_are_not_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "box"
    with new_folder(out) as folder, new_file(tmp_path / "other") as file:
        (folder / "box.json").write_text("first")
        refuse_existing(out)
        write_text(tmp_path / "other", "second")
        assert folder.is_dir()
        assert file.exists()
    assert (out / "box.json").read_text() == "first"
    assert not caplog.records


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("when", ["rename", "exchange", "rmtree"])
def test_a_kill_while_a_folder_is_replaced_loses_nothing(tmp_path: Path, exchanges: bool, when: str) -> None:
    out = tmp_path / "box"
    _box(out, "before")

    def replace() -> None:
        patch = pytest.MonkeyPatch()
        if not exchanges:
            patch.setattr("lorarec.io.artefacts.exchange", lambda *_: False)
        if when == "exchange":
            patch.setattr("lorarec.io.artefacts.exchange", lambda *_: _die())
        if when == "rename":  # the second of two: the former folder has been moved aside
            rename = Path.rename
            last = "box" if not exchanges else ""
            patch.setattr(Path, "rename", lambda old, new: _die() if _moved(old, new, last) else rename(old, new))
        if when == "rmtree":
            patch.setattr("shutil.rmtree", lambda *_, **__: _die())
        with new_folder(out, True, BOX) as folder:
            (folder / "box.json").write_text("after")

    def _moved(old: Path, new: Path, last: str) -> bool:
        return exchanges or (Path(new).name == last and not out.exists())

    _killed(replace)
    refuse_existing(tmp_path / "box", True, BOX)  # the first step of the next run
    assert (out / "box.json").read_text() in ("before", "after")
    assert _names(tmp_path) == ["box"]


def test_a_removed_folder_is_gone_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "box"
    _box(out, "old")

    def remove() -> None:
        patch = pytest.MonkeyPatch()
        patch.setattr("shutil.rmtree", lambda *_, **__: _die())
        remove_folder(out)

    _killed(remove)
    assert not out.exists()
    remove_folder(out)
    assert _names(tmp_path) == []


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_deep_json_is_refused(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * depth + "]" * depth)
    with pytest.raises(LorarecError, match=r"deep.json is not readable JSON: it is nested too deep"):
        read_json(path)


def test_an_empty_folder_is_free(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "none")
    refuse_existing(tmp_path)
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(LorarecError, match="exists already"):
            refuse_existing(taken)


def test_a_fingerprint_is_of_contents_and_their_order(tmp_path: Path) -> None:
    one, two, same = tmp_path / "one", tmp_path / "two", tmp_path / "same"
    one.write_text("1")
    two.write_text("2")
    same.write_text("1")
    assert file_fingerprint(one, two) == file_fingerprint(same, two)
    assert file_fingerprint(one, two) != file_fingerprint(two, one)


def test_text_that_is_not_utf8_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match=r"cannot write .*out\.json: .*\\udcff.* is not UTF-8 text"):
        write_json(tmp_path / "out.json", {"licence": "\udcff"})
    assert list(tmp_path.iterdir()) == []
