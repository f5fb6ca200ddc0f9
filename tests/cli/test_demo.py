"""The demo that the verb `demo` runs, and its arguments."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lorarec.cli.demo import demo_app, load_example
from lorarec.errors import LorarecError

MOLOREC, RECLORA = load_example("molorec_demo"), load_example("reclora_demo")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """The calls that were recorded instead of running the demos."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(MOLOREC, "run_demo", lambda *words: calls.append(("mixing", *words)))
    monkeypatch.setattr(RECLORA, "run_personal_demo", lambda *words: calls.append(("personal", *words)))
    monkeypatch.chdir(tmp_path)  # there is no output of an earlier demo
    return calls


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("mixing", Path("demo-output"), MOLOREC.FULL, 42, False)),
        (["--quick", "--out", "here", "--overwrite"], ("mixing", Path("here"), MOLOREC.QUICK, 42, True)),
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
def test_a_personal_demo_resumes_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool) -> None:
    def begin(*_: object) -> None:
        raise LookupError("training begins")

    monkeypatch.setattr("lorarec.personal.few2many.title_embeddings", begin)
    (tmp_path / "out.checkpoints").mkdir()  # a leftover of a killed run
    with pytest.raises(LookupError, match="training begins"):
        RECLORA.run_personal_demo(tmp_path / "out", quick=True, overwrite=overwrite)
