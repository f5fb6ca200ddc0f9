"""The verb `mix`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.lora import read_adapter
from tests.command_line import run


@pytest.fixture
def adapters(tiny_backbone: Backbone, write_adapter: Callable[..., Path], tmp_path: Path) -> list[Path]:
    """Two random adapters of the tiny backbone, without lorarec.json."""
    names = ("general", "specific")
    return [write_adapter(tiny_backbone.model, tmp_path / name, seed, r=2) for seed, name in enumerate(names)]


def _run(*words: object) -> str:
    return run("mix", *words).stdout


def test_fixed_needs_no_data(adapters: list[Path], backbone_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mixed"
    output = _run(*adapters, "--out", out, "--backbone", backbone_folder, "--method", "fixed", "--weights", "0.3,0.7")
    assert "0.300" in output
    assert "0.700" in output
    assert set(read_adapter(out).ranks.values()) == {2}


@pytest.mark.parametrize("method", ["grid", "entropy"])
def test_weights_from_a_dataset(
    method: str, adapters: list[Path], backbone_folder: Path, shop: Path, tmp_path: Path
) -> None:
    words = ["--backbone", backbone_folder, "--method", method, "--dataset", shop, "--combine", "deltas", "--rank", 3]
    words += ["--cases", 3] if method == "grid" else ["--prompts", 3, "--setting", "new-item"]
    output = [json.loads(_run(*adapters, "--out", tmp_path / str(run), *words, "--json")) for run in (0, 1)]
    assert output[0]["weights"] == output[1]["weights"]
    assert sum(output[0]["weights"]) == pytest.approx(1)
    assert set(read_adapter(tmp_path / "0").ranks.values()) == {3}
    recorded = json.loads((tmp_path / "0" / "lorarec.json").read_text())["mix"]
    assert recorded["dataset"] == "shop"
    assert recorded["seed"] == 42


def test_agreement_after_calibration(adapters: list[Path], backbone_folder: Path, shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "mixed"
    words = ["--method", "agreement", "--calibrate", "--dataset", shop, "--prompts", 3, "--cases", 4]
    output = json.loads(_run(*adapters, "--out", out, "--backbone", backbone_folder, *words, "--json"))
    assert sum(output["weights"]) == pytest.approx(1)
    recorded = json.loads((out / "lorarec.json").read_text())["mix"]
    assert (recorded["method"], recorded["prompts"], recorded["cases"]) == ("agreement", 3, 4)
    assert len(recorded["temperatures"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "fixed", "--weights", "0.3;0.7"], "must be numbers with commas"),
        (["--method", "fixed", "--weights", "0.3,0.6"], "sum to 0.9"),
        (["--method", "grid", "--scope", "layer"], "--scope layer needs --method entropy or agreement"),
        (["--method", "grid", "--calibrate"], "--calibrate needs --method entropy or agreement"),
        (["--method", "agreement"], "--method agreement needs --dataset"),
        (["--method", "grid"], "--method grid needs --dataset"),
        ([], "--method entropy needs --dataset"),
    ],
)
def test_bad_words(words: list[str], message: str, adapters: list[Path], backbone_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match=message):
        _run(*adapters, "--out", tmp_path / "mixed", "--backbone", backbone_folder, *words)
    assert not (tmp_path / "mixed").exists()
