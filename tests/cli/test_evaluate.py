"""The verb `evaluate`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.io.artefacts import write_json
from tests.command_line import run


@pytest.fixture
def adapter_folder(tiny_backbone: Backbone, write_adapter: Callable[..., Path], tmp_path: Path) -> Path:
    """A random adapter of the tiny backbone."""
    return write_adapter(tiny_backbone.model, tmp_path / "plug-in", 0)


def _run(*words: object) -> tuple[str, str]:
    result = run("evaluate", *words)
    return result.stdout, result.stderr


def test_tables_report_and_json(shop: Path, backbone_folder: Path, adapter_folder: Path, tmp_path: Path) -> None:
    words = [shop, "--backbone", backbone_folder, "--adapter", adapter_folder, "--adapter", f"mine={adapter_folder}"]
    output, progress = _run(*words, "--out", tmp_path / "report")
    assert "shop, warm" in output
    assert "shop, new-item" in output
    assert str(tmp_path / "report" / "report.md") in output
    assert "warm: plug-in NDCG@1" in progress
    found = json.loads(
        _run(*words, "--setting", "warm", "--limit", 6, "--compare", "mine", "--readout", "likelihood", "--json")[0]
    )
    assert list(found["settings"]) == ["warm"]
    warm = found["settings"]["warm"]
    assert (warm["cases"], warm["compare_with"]) == (6, "mine")
    assert list(warm["rows"]) == ["random", "popularity", "item-knn", "tf-idf", "zero-shot", "plug-in", "mine"]
    assert "readout likelihood" in warm["rows"]["plug-in"]["about"]
    with pytest.raises(LorarecError, match="report exists already"):
        _run(*words, "--out", tmp_path / "report")


def test_the_whole_catalogue(shop: Path, backbone_folder: Path, adapter_folder: Path, tmp_path: Path) -> None:
    words = [shop, "--backbone", backbone_folder, "--adapter", f"mine={adapter_folder}", "--candidates", "all"]
    found = json.loads(_run(*words, "--pool", 8, "--setting", "warm", "--limit", 6, "--json")[0])
    assert found["candidates"] == "all"
    warm = found["settings"]["warm"]
    assert (warm["catalogue"], warm["compare_with"]) == (50, "index")
    baselines = ["random", "popularity", "item-knn", "tf-idf"]
    assert list(warm["rows"]) == [*baselines, "index", "index+zero-shot", "index+mine"]
    assert warm["rows"]["index+mine"]["about"].startswith("the 8 items that an index proposes from next, together")
    recalls = [warm["rows"][name]["recall@100"]["mean"] for name in ("index", "index+zero-shot", "index+mine")]
    assert len(set(recalls)) == 1
    output, progress = _run(*words, "--compare", "tf-idf", "--limit", 2, "--out", tmp_path / "report")
    assert "RECALL@10" in output
    assert "warm: index+mine NDCG@10" in progress
    with pytest.raises(LorarecError, match=r"no row 'mine' to compare with: choose one of .* index\+mine"):
        _run(*words, "--compare", "mine", "--limit", 2)


def test_adapter_of_another_split_is_warned_about(shop: Path, backbone_folder: Path, adapter_folder: Path) -> None:
    trained = {"name": "shop", "fingerprint": Dataset.load(shop).fingerprint, "split": "0123"}
    write_json(adapter_folder / "lorarec.json", {"datasets": [trained]})
    words = [shop, "--backbone", backbone_folder, "--adapter", adapter_folder, "--setting", "warm", "--limit", 2]
    warnings = [line for line in _run(*words)[1].splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "was trained on another split of shop" in warnings[0]


def test_adapter_of_another_split_in_a_fusion_is_warned_about(
    shop: Path, backbone_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    trained = {"name": "shop", "fingerprint": Dataset.load(shop).fingerprint, "split": "0123"}
    write_json(adapter_folder / "lorarec.json", {"datasets": [trained]})
    backbone = ("--backbone", backbone_folder)
    made = ("--recommender", "popularity", "--pool", "0", "--out", tmp_path / "fused")
    run("fuse", shop, *backbone, "--adapter", f"mine={adapter_folder}", *made)
    words = [shop, *backbone, "--fusion", tmp_path / "fused", "--setting", "warm", "--limit", 2]
    with pytest.raises(LorarecError, match="fused cannot order what an index proposes: fuse with --pool above 0"):
        _run(*words, "--candidates", "all")
    warnings = [line for line in _run(*words)[1].splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "was trained on another split of shop" in warnings[0]


def test_adapter_of_another_backbone_is_an_error(shop: Path, backbone_folder: Path, adapter_folder: Path) -> None:
    write_json(adapter_folder / "lorarec.json", {"backbone": {"id": "big", "fingerprint": "0123"}})
    with pytest.raises(LorarecError, match="belongs to backbone big"):
        _run(shop, "--backbone", backbone_folder, "--adapter", adapter_folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--adapter", "a=x", "--adapter", "a=y"], "two adapters are called a: tell them apart"),
        (["--adapter", "a="], "--adapter a= must be a folder or NAME=FOLDER"),
        (["--adapter", "nowhere"], "adapter nowhere does not exist"),
        (["--compare", "nobody"], "no row 'nobody' to compare with"),
    ],
)
def test_bad_options(shop: Path, backbone_folder: Path, words: list[str], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        _run(shop, "--backbone", backbone_folder, *words)
