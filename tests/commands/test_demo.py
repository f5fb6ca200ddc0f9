"""Which demo the verb demo runs, and with what."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import lorarec.demo
from lorarec.commands.demo import demo_app
from lorarec.demo import run_personal_demo
from lorarec.errors import LorarecError


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was run instead of the demos."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(lorarec.demo, "run_demo", lambda *words: calls.append(("mixing", *words)))
    monkeypatch.setattr(lorarec.demo, "run_personal_demo", lambda *words: calls.append(("personal", *words)))
    return calls


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("mixing", Path("demo-output"), lorarec.demo.FULL, 42, False)),
        (["--quick", "--out", "here", "--overwrite"], ("mixing", Path("here"), lorarec.demo.QUICK, 42, True)),
        (["personal", "--quick", "--seed", "7"], ("personal", Path("demo-personal-output"), True, 7, False)),
    ],
)
def test_one_demo_is_run(ran: list[tuple[Any, ...]], words: list[str], expected: tuple[Any, ...]) -> None:
    assert CliRunner().invoke(demo_app, words).exit_code == 0
    assert ran == [expected]


def test_options_of_the_one_are_not_lost_on_the_other(ran: list[tuple[Any, ...]]) -> None:
    result = CliRunner().invoke(demo_app, ["--quick", "personal"])
    assert isinstance(result.exception, LorarecError)
    assert ran == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_personal_demo_goes_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool) -> None:
    def begin(*_: object) -> None:
        raise LookupError("training begins")

    monkeypatch.setattr("lorarec.personal.few2many.title_embeddings", begin)
    (tmp_path / "out.checkpoints").mkdir()  # what a killed run leaves
    with pytest.raises(LookupError, match="training begins"):
        run_personal_demo(tmp_path / "out", quick=True, overwrite=overwrite)
