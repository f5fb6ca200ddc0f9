"""Runs that are killed lose no results and leave no unfinished files; `benchmarks/kills.py` does so with every verb."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lorarec

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "kills.py"


@pytest.mark.skipif(not SCRIPT.exists(), reason="benchmarks/ is not here")
def test_killed_runs_lose_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(lorarec.__file__).parents[1])}
    command = [sys.executable, str(SCRIPT), "--quick", "--out", str(tmp_path / "work")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert len(rows) >= 7  # four verbs, three of them with and without --overwrite
    assert all(int(row[-1]) == 0 for row in rows)
    assert all(row[-2] == row[-3] for row in rows)  # all were killed before the end
