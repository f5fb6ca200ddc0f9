import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lorarec.backbone.load import embedded_folder, load_tokenizer
from lorarec.cli.doctor import installed_extras
from lorarec.cli.entry import app
from lorarec.errors import LorarecError
from tests.factories import tiny_model


def write(model: torch.nn.Module, folder: Path) -> str:
    model.save_pretrained(folder)
    load_tokenizer(str(embedded_folder())).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def vocabulary() -> int:
    return len(load_tokenizer(str(embedded_folder())))


def test_it_prints_the_plan_and_what_was_measured(tmp_path: Path, vocabulary: int) -> None:
    folder = write(tiny_model("mistral", vocabulary, sliding_window=32), tmp_path / "mistral")
    result = CliRunner().invoke(app, ["doctor", folder], catch_exceptions=False)
    assert result.exit_code == 0
    lines = {line[:22].strip(): line[22:].strip() for line in result.stdout.splitlines()}
    assert lines["model"].startswith("MistralForCausalLM (mistral), ")
    assert (lines["plan"], lines["attention windows"], lines["readout verdict"]) == ("tree", "32", "yes")
    found = json.loads(CliRunner().invoke(app, ["doctor", folder, "--json"]).stdout)
    assert found["exact"]
    assert found["difference"] <= found["tolerance"] == 1e-3


def test_it_prints_what_is_installed_before_it_loads_a_model(tmp_path: Path, vocabulary: int) -> None:
    folder = write(tiny_model("bert", vocabulary), tmp_path / "bert")
    printed = CliRunner().invoke(app, ["doctor", folder]).stdout
    lines = {line[:22].strip(): line[22:].strip() for line in printed.splitlines()}
    assert f"torch {torch.__version__}" in lines["versions"]
    assert lines["devices"].startswith("cpu (")
    assert {"extras", "extras not installed"} <= lines.keys()


def test_extras_are_those_whose_requirements_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "shop_tools-1.0.dist-info"
    folder.mkdir()
    requirements = [
        "numpy",
        "numpy>=1; extra == 'new_enough'",
        "numpy>=999; extra == 'too-old'",
        "torch; extra == 'half'",
        "no-such-package>=2; extra == 'half'",
        "no-such-package; extra == 'elsewhere' and sys_platform == 'nowhere'",
    ]
    extras = ["new_enough", "too-old", "half", "elsewhere"]
    lines = [
        "Metadata-Version: 2.4",
        "Name: shop-tools",
        "Version: 1.0",
        *(f"Provides-Extra: {each}" for each in extras),
    ]
    (folder / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {each}" for each in requirements), ""]))
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_extras("shop-tools") == {
        "new_enough": [],
        "too-old": ["numpy>=999"],
        "half": ["no-such-package>=2"],
        "elsewhere": [],
    }
    assert installed_extras("a package that was never installed") == {}


def test_a_model_that_cannot_be_scored(tmp_path: Path, vocabulary: int) -> None:
    folder = write(tiny_model("bert", vocabulary), tmp_path / "bert")
    for arguments in (["doctor", folder], ["evaluate", str(tmp_path / "shop"), "--backbone", folder]):
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, LorarecError)
    assert "BertLMHeadModel (bert) cannot be scored" in str(CliRunner().invoke(app, ["doctor", folder]).exception)


def test_prompts_end_where_positions_do(tmp_path: Path, vocabulary: int, shop: Path) -> None:
    """A table of 96 positions, though prompts may be of 1,024 tokens: the oldest history is left out."""
    folder = write(tiny_model("gpt2", vocabulary, max_position_embeddings=96), tmp_path / "gpt2")
    arguments = ["evaluate", str(shop), "--backbone", folder, "--limit", "5", "--out", str(tmp_path / "report")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "report" / "metrics.json").exists()
