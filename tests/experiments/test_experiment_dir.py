"""The folder of an experiment and its owner."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from lorarec.experiments.experiment_dir import open_experiment_dir


def _open(out: Path) -> None:
    open_experiment_dir(out, {"dataset": "shop"}, {"rows": {}})


def _killed_before_write(out: Path, number: int) -> bool:
    """Kill a process that opens the folder before its write or rename of this number; return whether it had one."""
    child = os.fork()
    if not child:
        left = number

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if writes or event in ("os.mkdir", "os.rename"):
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        _open(out)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_folder_whose_first_run_was_killed_is_still_its_own(tmp_path: Path) -> None:
    number = 1
    while _killed_before_write(tmp_path / f"killed-{number}", number):
        _open(tmp_path / f"killed-{number}")
        assert sorted(os.listdir(tmp_path / f"killed-{number}")) == ["experiment.json", "recipe.yaml"]
        number += 1
    assert number > 5
