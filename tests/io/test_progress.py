"""Progress is shown on standard error, line by line if that is not a terminal."""

import io
import time
from pathlib import Path

import pytest

from lorarec.io import progress
from lorarec.io.progress import Progress, track, track_reading


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.02)


def _wait_for_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Wait for text on standard error and return its lines; standard output must be empty."""
    for _ in range(500):
        out, err = capsys.readouterr()
        assert out == ""
        if err:
            lines = err.splitlines()
            assert all(lines)
            return lines
        time.sleep(0.01)
    return []


def test_a_line_shows_steps_metrics_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress("Training", 1200) as progress:
        progress._begun = time.monotonic() - 60
        progress.update(300, "loss 0.693")
        capsys.readouterr()
        assert _wait_for_lines(capsys)[0] == "Training: 300 of 1,200 (25%), loss 0.693, 3:00 left"
        progress.update(1200)
        assert progress.line() == "Training: 1,200 of 1,200 (100%), loss 0.693, 0:00 left"


def test_work_of_an_earlier_run_does_not_count_for_the_time_left() -> None:
    with Progress("Ranking users", 1000, 900, enabled=False) as progress:
        progress._begun = time.monotonic() - 3600
        assert progress.line() == "Ranking users: 900 of 1,000 (90%)"
        progress.update(950)
        assert progress.line() == "Ranking users: 950 of 1,000 (95%), 1:00:00 left"
        progress.resume(960)
        assert progress.line() == "Ranking users: 960 of 1,000 (96%)"


def test_work_of_unknown_size_shows_its_duration(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("Assembling"):
        assert _wait_for_lines(capsys)[0] == "Assembling: 0:00 so far"


def test_nothing_is_shown_after_the_end_or_if_disabled(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), Progress("Training", 10):
        raise RuntimeError
    with Progress("Training", 10, enabled=False):
        time.sleep(0.1)
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr() == ("", "")


def test_items_come_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for item in track("abcd", "Counting"):
        found.append(item)
        if item == "c":
            capsys.readouterr()
            assert _wait_for_lines(capsys)[-1].startswith("Counting: 2 of 4 (50%), ")
    assert found == list("abcd")
    assert list(track(iter("ab"), "Counting", enabled=False)) == ["a", "b"]


def test_bytes_come_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(bytes(range(256)) * 1000)
    with path.open("rb") as raw, track_reading(raw, path) as stream:
        assert stream.read(3) + stream.readline() == path.read_bytes()[:11]
        assert stream.read() == path.read_bytes()[11:]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("Training [x]", 10) as progress:
        progress.update(5, "loss [1]")
        time.sleep(0.3)
    assert "Training [x]" in terminal.getvalue()
    assert "50%" in terminal.getvalue()
    assert "loss [1]" in terminal.getvalue()
