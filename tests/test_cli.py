"""The command line as a whole: verbs, errors, exit codes, speed of the help page."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import lorarec
from lorarec.cli import entry as cli

VERBS = [
    "data",
    "update",
    "train",
    "mix",
    "export",
    "personal",
    "index",
    "fuse",
    "recommend",
    "rank",
    "explain",
    "serve",
]
VERBS += ["evaluate", "evaluate-clicks", "experiment", "demo", "prompt", "doctor"]
INNER_VERBS = ["data import", "data import table", "data import amazon", "data import movielens", "data import sample"]
INNER_VERBS += ["data describe", "data split", "demo personal"]
INNER_VERBS += ["personal train", "personal train-router", "personal export"]


def _process(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(lorarec.__file__).parents[1])}
    return subprocess.run([sys.executable, "-c", code], env=environment, text=True, check=False, **options)


def _main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["lorarec", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code


def test_help_names_every_verb_and_loads_no_heavy_library() -> None:
    code = """
import sys
from lorarec.cli.entry import app
try:
    app(["--help"])
finally:
    print("heavy:", [name for name in ("torch", "transformers", "polars", "numpy") if name in sys.modules])
"""
    page = _process(code, capture_output=True).stdout
    assert "heavy: []" in page
    listed = [line.split()[1] for line in page.splitlines() if line.startswith("│ ") and line[2] != " "]
    assert [word for word in listed if not word.startswith("-")] == VERBS


@pytest.mark.parametrize("verb", [*VERBS, *INNER_VERBS])
def test_every_verb_has_a_help_page_that_fits_a_screen(verb: str) -> None:
    result = CliRunner().invoke(cli.app, [*verb.split(), "--help"], prog_name="lorarec", env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    assert f"lorarec {verb}" in result.output
    options = result.output[result.output.index("─ Options ") :]
    assert len(options[: options.index("╰")].splitlines()) <= 40


@pytest.mark.parametrize("verb", [*VERBS, *INNER_VERBS])
def test_every_verb_shows_an_example(verb: str) -> None:
    page = CliRunner().invoke(cli.app, [*verb.split(), "--help"], env={"COLUMNS": "100"}).output
    is_group = "─ Commands " in page and verb != "demo"
    assert is_group or f"Example: lorarec {verb}" in page


def test_verbs_that_have_moved_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(monkeypatch, "import", "table", "log.csv") == 2
    assert capsys.readouterr().err == "error: `lorarec import` is called `lorarec data import`\n"


def test_group_of_one_verb_keeps_its_verb() -> None:
    assert "personal" in CliRunner().invoke(cli.app, ["demo", "--help"]).output


def test_version() -> None:
    assert CliRunner().invoke(cli.app, ["--version"]).output == f"lorarec {lorarec.__version__}\n"


def test_bad_input_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = tmp_path / ("a folder with a name that is longer than one line of a terminal " * 2 + "[red]")
    assert _main(monkeypatch, "data", "describe", str(missing)) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: {missing} ")
    assert output.err.count("\n") == 1


def test_message_of_several_lines_becomes_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise lorarec.LorarecError("first\nsecond")

    monkeypatch.setattr(cli, "app", fail)
    assert _main(monkeypatch) == 2
    assert capsys.readouterr().err == "error: first second\n"


def test_messages_hold_no_commands_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise lorarec.LorarecError("layer \x1b]0;title\x07\x1b[2J of \udc80 café ☃")

    monkeypatch.setattr(cli, "app", fail)
    assert _main(monkeypatch) == 2
    assert capsys.readouterr().err == "error: layer \\x1b]0;title\\x07\\x1b[2J of \\udc80 café ☃\n"


def test_file_of_the_system_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise PermissionError(13, "Permission denied", "log.csv")

    monkeypatch.setattr(cli, "app", fail)
    assert _main(monkeypatch) == 2
    assert capsys.readouterr().err == "error: log.csv: Permission denied\n"


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("not about a file")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(OSError, match="not about"):
        cli.main()


def test_unknown_verb_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(monkeypatch, "explan") == 2
    assert "Did you mean 'explain'?" in capsys.readouterr().err


def test_interruption_has_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(verb: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_load", interrupt)
    assert _main(monkeypatch, "data", "describe", "shop") == 130


def test_reader_that_stops_early_gets_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = _process(
        "import sys; from lorarec.cli import main; sys.argv = ['lorarec', '--help']; main()",
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""
