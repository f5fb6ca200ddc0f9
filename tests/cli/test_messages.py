"""Names of options in error messages."""

import pytest

from lorarec.cli.messages import with_flags

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
