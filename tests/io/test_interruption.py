"""SIGTERM ends a process as Ctrl+C does: unfinished files are removed first."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lorarec.cli.options import continued_by
from lorarec.io import Terminated

CODE = """
import signal, sys, time
from lorarec.io import Terminated, end_by_sigterm, new_file, new_folder, raising_on_sigterm
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in background jobs
out, number = sys.argv[1], int(sys.argv[2])
try:
    with raising_on_sigterm(), new_folder(f"{out}/folder") as folder, new_file(f"{out}/file") as file:
        (folder / "half.txt").write_text("half")
        signal.raise_signal(number)
        time.sleep(60)
except Terminated:
    end_by_sigterm()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_unfinished_is_left(tmp_path: Path, number: signal.Signals) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, str(tmp_path), str(int(number))], stderr=subprocess.DEVNULL)
    assert done.returncode == -number
    assert not list(tmp_path.iterdir())


EVERYWHERE = """
import os, shutil, sys
from pathlib import Path
from lorarec.io import FolderKind, new_file, new_folder

EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "ctypes.dlsym")
left = 0

def interrupt(event, _):
    global left
    if left and event in EVENTS:
        left -= 1
        if not left:
            raise KeyboardInterrupt

sys.addaudithook(interrupt)
if sys.argv[2] == "no exchange":
    import lorarec.io.artefacts
    lorarec.io.artefacts.exchange = lambda *_: False
out, marker = Path(sys.argv[1], "out"), FolderKind.SPLIT.marker

def write(text):
    with new_folder(out, out.exists(), FolderKind.SPLIT) as folder:
        (folder / marker).write_text(text)
        with new_file(folder / "train.parquet") as file:
            file.write_text(text)

for replaces in (False, True):
    at = 1
    while True:
        shutil.rmtree(out, ignore_errors=True)
        if replaces:
            write("old")
        left = at
        try:
            write("new")
        except KeyboardInterrupt:
            pass
        if left:  # the folder was written without so many calls
            left = 0
            break
        found = sorted(path.relative_to(sys.argv[1]).as_posix() for path in Path(sys.argv[1]).rglob("*"))
        text = (out / marker).read_text() if found else None
        print(replaces, at, text, found)
        at += 1
"""


@pytest.mark.parametrize("disk", ["exchange", "no exchange"])
def test_ctrl_c_before_any_call_to_the_file_system(tmp_path: Path, disk: str) -> None:
    done = subprocess.run([sys.executable, "-c", EVERYWHERE, str(tmp_path), disk], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 20
    whole = "['out', 'out/split.json', 'out/train.parquet']"
    assert {line.split(" ", 2)[2] for line in lines if line.startswith("False")} == {"None []", f"new {whole}"}
    assert {line.split(" ", 2)[2] for line in lines if line.startswith("True")} == {f"old {whole}", f"new {whole}"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, Terminated])
def test_commands_that_can_be_continued_say_how(
    error: type[BaseException], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(error), continued_by("go on like this"):
        raise error
    assert capsys.readouterr().err == "interrupted: go on like this\n"
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(error), continued_by("go on like this"):
        raise error
    assert capsys.readouterr().err == ""
