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
