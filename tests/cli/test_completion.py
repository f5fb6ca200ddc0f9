import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("lorarec tra", ["train"]),
        ("lorarec train --learning-r", ["--learning-rate"]),
        ("lorarec mix --combine dare", ["dare_linear", "dare_ties"]),
        ("lorarec data des", ["describe"]),
        ("lorarec import x", []),
    ],
)
def test_bash_completes_verbs_options_and_choices(words: str, expected: list[str]) -> None:
    words_so_far = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    result = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'lorarec'; from lorarec.cli import main; main()"],
        env={**os.environ, **words_so_far, "_LORAREC_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.stdout.split(), result.stderr) == (expected, "")
