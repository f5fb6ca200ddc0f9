"""The group `personal`: train, train-router, export."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset, leave_one_out
from lorarec.errors import LorarecError
from lorarec.lora import read_adapter
from tests.command_line import run
from tests.factories import dataset_of, numbered_titles

QUICK = ["--samples", "24", "--epochs", "1", "--num-meta-loras", "2", "--r", "2", "--batch-size", "8"]


@pytest.fixture
def rated(tmp_path: Path) -> Path:
    """A dataset folder of 12 users with 10 rated films each, and a new one with two of a single moment."""
    rng = np.random.default_rng(0)
    rows = [(f"u{k % 12:02}", f"i{k * 7 % 30:02}", k, float(rng.integers(1, 6))) for k in range(120)]
    rows += [("new", "i01", 120, 5.0), ("new", "i02", 120, 2.0)]
    dataset_of(rows, numbered_titles(30), "films").save(tmp_path / "films")
    return tmp_path / "films"


def _run(*words: object) -> str:
    return run("personal", *words).stdout


def test_from_ratings_to_a_users_adapter(rated: Path, backbone_folder: Path, tmp_path: Path) -> None:
    run = ("train", rated, "--backbone", backbone_folder, *QUICK)
    output = _run(*run, "--shared", "similar", "--out", tmp_path / "one")
    for word in ("DIN", "shared LoRA", "RecLoRA", "AUC", "LogLoss", "ACC", "ECE", "Of 13 test events", "mean weights"):
        assert word in " ".join(output.split())
    written = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert 0 <= written["rows"]["RecLoRA"]["auc"]["low"] <= written["rows"]["RecLoRA"]["auc"]["mean"] <= 1
    report = (tmp_path / "one" / "report.md").read_text()
    assert "| RecLoRA |" in report
    assert "](weights.png)" in report
    assert (tmp_path / "one" / "weights.png").is_file()
    figures = json.loads(_run(*run, "--ctr-model", tmp_path / "one" / "crm", "--out", tmp_path / "two", "--json"))
    for row in ("DIN", "RecLoRA"):
        for metric, expected in written["rows"][row].items():
            # The second run has no row `similar`, so its p-values are corrected for fewer comparisons.
            found = figures["rows"][row][metric]
            assert {**found, "adjusted_p": None} == {**expected, "adjusted_p": None}
    assert "u03" in _run("export", tmp_path / "one", "--user", "u03", "--out", tmp_path / "u03")
    assert read_adapter(tmp_path / "u03").record.user == "u03"
    assert "router's mean mixture" in _run("export", tmp_path / "one", "--user", "new", "--out", tmp_path / "new")
    with pytest.raises(LorarecError, match="one has no user 'nobody'"):
        _run("export", tmp_path / "one", "--user", "nobody", "--out", tmp_path / "nobody")
    assert not (tmp_path / "nobody").exists()
    with pytest.raises(LorarecError, match="was trained on other data"):
        _run(*run, "--positive-from", "3", "--ctr-model", tmp_path / "one" / "crm", "--out", tmp_path / "three")
    assert not list(tmp_path.glob("three*"))


def test_a_user_router_over_two_adapters(
    rated: Path, backbone_folder: Path, write_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    leave_one_out(Dataset.load(rated), new_items=0, negatives=5).save(rated / "split")
    model, names = Backbone.from_pretrained(backbone_folder).model, ("general", "specific")
    pair = [write_adapter(model, tmp_path / name, seed, {"readout": "verdict"}) for seed, name in enumerate(names)]
    run = ("train-router", rated, *pair, "--backbone", backbone_folder, "--epochs", "1", "--ctr-model", "titles")
    figures = json.loads(_run(*run, "--out", tmp_path / "one", "--limit", "8", "--json"))
    rows = ["zero-shot", *(path.name for path in pair), "constant mixture", "own mixture"]
    assert list(figures["settings"]["warm"]["rows"])[-5:] == rows
    assert figures["settings"]["warm"]["cases"] == figures["adapter_preference"]["users"] == 8
    assert sum(part["users"] for part in figures["adapter_preference"]["terciles"]) == 8
    assert json.loads((tmp_path / "one" / "adapter_preference.json").read_text()) == figures["adapter_preference"]
    assert "## Which users prefer which adapter" in (tmp_path / "one" / "report.md").read_text()
    assert (tmp_path / "one" / "adapter_preference.png").is_file()
    output = " ".join(_run(*run, "--out", tmp_path / "two").split()).lower()
    for word in ("own mixture", "weight of general", "report: "):
        assert word in output
    _run("export", tmp_path / "one", "--user", "u03", "--out", tmp_path / "u03")
    record = read_adapter(tmp_path / "u03").record
    assert (record.user, record.prompt.readout) == ("u03", "verdict")
    with pytest.raises(LorarecError, match="one exists already"):
        _run(*run, "--out", tmp_path / "one")
    with pytest.raises(LorarecError, match="has no setting 'new-item': choose from warm"):
        _run(*run, "--out", tmp_path / "new", "--setting", "new-item")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (
            ["train-router", "films", "a", "b", "--out", "new", "--held-out", "2"],
            "option --held-out must be between 0 and 1",
        ),
        (["train-router", "nowhere", "a", "b", "--out", "new"], "nowhere is not a dataset folder"),
        (["choose", "films", "a", "b", "--out", "new"], "choose` is called `lorarec personal train-router`"),
        (["train", "films", "--ctr-model", "nope", "--samples", "24", "--out", "new"], "'nope' is neither a folder"),
        (["train", "films", "--samples", "5000", "--out", "new"], "cannot draw 5000 of 97 train events"),
        (["train", "films", "--stars", "3", "--out", "new"], "outside 0 to 3"),
        (["train", "films", "--positive-from", "1", "--out", "new"], "every rating is at least 1.0: choose another"),
        (["train", "films", "--positive-from", "5.5", "--out", "new"], "no rating is at least 5.5: choose another"),
        (["train", "films", "--learning-rate", "0", "--out", "new"], "option --learning-rate must be positive"),
        (["train", "films", "--out", "films"], "films exists already"),
        (["export", "films", "--user", "u03", "--out", "new"], "films has no personal adapters: give a folder of"),
        (
            ["train", "films", "--samples", "40", "--ctr-model", "films", "--out", "new"],
            "films is not a folder of a click-through model",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    rated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Callable[..., str],
    words: list[str],
    cause: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cause in refusal("personal", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["films"]
