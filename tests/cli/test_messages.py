"""Names of options in error messages, and what is printed where a terminal lacks characters."""

import json
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from lorarec.cli import main
from lorarec.cli.messages import with_flags
from tests.factories import dataset_of

FLAGS = {
    name: f"--{name.replace('_', '-')}"
    for name in ("overwrite", "learning_rate", "negatives", "decimal", "separator", "no_header", "evidence", "out")
} | {"start_from": "--from"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("pass overwrite=True", "pass --overwrite"),
        ("option learning_rate must be positive", "option --learning-rate must be positive"),
        ("option negatives must be at least 1", "option --negatives must be at least 1"),
        ("give start_from an adapter", "give --from an adapter"),
        ('set decimal="comma", or separator=";"', 'set --decimal comma, or --separator ";"'),
        ("separator=','", "--separator ','"),
        ("header=False", "--no-header"),
        ("evidence=False", "--no-evidence"),
        # Words that name no option of the verb, and paths, are unchanged.
        ("pass resume=True", "pass resume=True"),
        ("fewer negatives are out there", "fewer negatives are out there"),
        ("/data/learning_rate/x: not found", "/data/learning_rate/x: not found"),
        ("learning_rate.csv: no column 'no_header'", "learning_rate.csv: no column 'no_header'"),
        ("option of a kind", "option of a kind"),
    ],
)
def test_names_become_flags(message: str, expected: str) -> None:
    assert with_flags(message, FLAGS) == expected


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-8"])
def test_characters_that_a_terminal_lacks_are_escaped_as_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    name = "Ünï ☃ 😀 [b] [/b]"  # square brackets are no markup
    dataset_of([("u", "i", 1), ("u", "j", 2)], name=name).save(tmp_path / "shop")
    printed = []
    for words in (["--json"], []):
        output = BytesIO()
        monkeypatch.setattr(sys, "stdout", TextIOWrapper(output, encoding=encoding))
        monkeypatch.setattr(sys, "argv", ["lorarec", "data", "describe", str(tmp_path / "shop"), *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 0
        sys.stdout.flush()
        printed.append(output.getvalue().decode(encoding))
    assert json.loads(printed[0])["name"] == name
    assert "[b] [/b]" in printed[1]
