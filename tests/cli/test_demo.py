"""The demo that the verb `demo` runs, and its arguments."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from lorarec.cli.demo import demo_app, load_example
from lorarec.errors import LorarecError
from tests.factories import make_backbone, save_backbone

#: A chat template.
CHAT = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}<assistant>"
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
        ([], ("mixing", Path("demo-output"), MOLOREC.FULL, 42, False, "embedded")),
        (["--quick", "--out", "here", "--overwrite"], ("mixing", Path("here"), MOLOREC.QUICK, 42, True, "embedded")),
        (["--reduced", "--backbone", "me/llm"], ("mixing", Path("demo-output"), MOLOREC.REDUCED, 42, False, "me/llm")),
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--quick", "--reduced"], "--quick and --reduced are two sizes of the demo"),
        (["--out", str(Path(__file__).parent)], "exists already: choose another folder or pass --overwrite"),
        (["--backbone", "missing.gguf"], "backbone missing.gguf is not a folder or a GGUF file"),
    ],
)
def test_refusals(ran: list[tuple[Any, ...]], words: list[str], message: str) -> None:
    result = CliRunner().invoke(demo_app, words)
    assert isinstance(result.exception, LorarecError)
    assert message in str(result.exception)
    assert ran == []


def test_the_reduced_demo_ends_with_a_reason_of_a_chat_model(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|end|>", pad_token="<|end|>", chat_template=CHAT
    )
    folder = save_backbone(make_backbone("qwen2", chat, max_position_embeddings=2048), tmp_path / "backbone")
    monkeypatch.setattr(MOLOREC, "FUSED", ("item-knn", "popularity"))
    size = replace(MOLOREC.REDUCED, cases=8, users=4, fused=8, pool=10)
    evaluation = MOLOREC.run_demo(tmp_path / "out", size, backbone=str(folder))
    for setting in MOLOREC.SETTINGS:
        rows = evaluation.settings[setting].rows
        assert [*rows] == ["random", "popularity", "item-knn", "tf-idf", "zero-shot", "specific", "fusion"]
        assert evaluation.settings[setting].cases == 4
    assert [path.name for path in (tmp_path / "out" / MOLOREC.ADAPTERS).iterdir()] == ["specific"]
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    first = report[report.index("\n1. ") + 4 :].partition("\n")[0]
    assert f"Why {first}?" in report
    assert f"> {first} is recommended because" in report


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_personal_demo_resumes_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool) -> None:
    def begin(*_: object) -> None:
        raise LookupError("training begins")

    monkeypatch.setattr("lorarec.personal.few2many.title_embeddings", begin)
    (tmp_path / "out.checkpoints").mkdir()  # a leftover of a killed run
    with pytest.raises(LookupError, match="training begins"):
        RECLORA.run_personal_demo(tmp_path / "out", quick=True, overwrite=overwrite)
