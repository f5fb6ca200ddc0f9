"""The verb `update`: from a dataset, its index, fusion and adapter to those of the dataset with new events."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from lorarec.cli.entry import main
from lorarec.cli.update import _names_in_fusion
from lorarec.data import Dataset, load_split
from lorarec.errors import LorarecError
from lorarec.io import file_fingerprint, read_json, write_json
from lorarec.lora import AdapterRecord, save_adapter
from lorarec.ranking import fuse
from lorarec.recommenders import FusionConfig
from lorarec.retrieval import Index
from tests.command_line import run
from tests.factories import hot_backbone, hot_log, random_adapter, save_backbone

QUICK = ("--eval-users", "4", "--epochs", "1", "--r", "2", "--batch-size", "8", "--negatives", "3")


@pytest.fixture
def home(shop: Path, tmp_path: Path) -> Path:
    """A dataset folder data/monday, and a log of the next day with new items in tuesday.csv and items.csv."""
    (tmp_path / "data").mkdir()
    shop.rename(tmp_path / "data" / "monday")
    rows = [(f"u{k // 4:02}", f"i{k * 3 % 52:02}", 100 + k) for k in range(60)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(tmp_path / "tuesday.csv")
    (tmp_path / "items.csv").write_text("item_id,title\ni50,lamp 50\ni51,lamp 51\n")
    return tmp_path


def update(home: Path, *words: object) -> dict:
    events = ("--events", home / "tuesday.csv", "--items", home / "items.csv", "--out", home / "data" / "tuesday")
    return json.loads(run("update", home / "data" / "monday", *events, *words, "--json").stdout)


def test_a_dataset_alone(home: Path) -> None:
    figures = update(home)
    before, after = (Dataset.load(home / "data" / day) for day in ("monday", "tuesday"))
    assert figures["added"] == {"users": 0, "items": 2, "interactions": 60}
    assert figures["previous"] == before.fingerprint
    assert after.info["updates"][-1]["source"] == "table tuesday.csv"
    split = load_split(after)
    assert split.info["options"]["protocol"] == "global-time"
    assert {split.info["options"][name] for name in ("negatives", "seed")} == {5, 42}
    assert before.interactions.height == 80
    with pytest.raises(LorarecError, match="tuesday exists already: choose another folder or pass --overwrite"):
        update(home)
    assert update(home, "--overwrite")["added"] == figures["added"]
    text = run("update", home / "data" / "monday", "--events", home / "tuesday.csv", "--out", home / "data" / "other")
    assert "untitled rows dropped" in text.stdout


def test_the_last_time_before_the_update_is_shown_as_a_date(tmp_path: Path) -> None:
    rows = [(f"u{k % 8}", f"i{k * 5 % 32}", 1_714_521_600 + 60 * k, f"lamp {k * 5 % 32}") for k in range(64)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "title"], orient="row")
    Dataset.from_polars(log[:40]).save(tmp_path / "monday")
    run("data", "split", tmp_path / "monday", "--negatives", "3")
    log[40:].write_csv(tmp_path / "tuesday.csv")
    shown = run("update", tmp_path / "monday", "--events", tmp_path / "tuesday.csv", "--out", tmp_path / "tuesday")
    assert "2024-05-01 00:39:00" in shown.stdout


def test_a_dataset_that_leave_one_out_cannot_divide(home: Path) -> None:
    """No split is drawn of the dataset before the update, which stays as it is."""
    rows = [(f"v{user:02}", f"i{(user * 2 + place) % 50:02}", place) for user in range(30) for place in range(2)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    titles = pl.DataFrame({"item_id": [f"i{k:02}" for k in range(50)], "title": [f"lamp {k}" for k in range(50)]})
    Dataset.from_polars(log, titles).save(home / "data" / "monday", overwrite=True)
    files = sorted((home / "data" / "monday").iterdir())
    assert update(home)["added"]["interactions"] == 60
    assert sorted((home / "data" / "monday").iterdir()) == files


def test_everything_is_continued_beside_what_it_was(home: Path, tiny_backbone) -> None:
    save_backbone(tiny_backbone, home / "backbone")
    backbone = ("--backbone", home / "backbone")
    monday = home / "data" / "monday"
    run("index", monday, "--out", home / "index" / "monday", "--epochs", "1", "--hidden-size", "8")
    run("train", monday, *backbone, "--out", home / "adapters" / "monday", *QUICK)
    fused = ("--pool", "20", "--cases", "10", "--set", "unisrec.num_experts=2")
    for name in ("sasrec", "gru4rec", "unisrec"):
        fused += ("--set", f"{name}.epochs=1", "--set", f"{name}.hidden_size=8")
    adapter = home / "adapters" / "monday"
    run("fuse", monday, *backbone, "--adapter", f"mine={adapter}", *fused, "--out", home / "fusions" / "monday")
    given = ("--index", home / "index" / "monday", "--adapter", adapter, "--fusion", home / "fusions" / "monday")
    figures = update(home, *given, *backbone, "--samples", "8", "--epochs", "1")
    tuesday = Dataset.load(home / "data" / "tuesday")
    assert [figures[name] for name in ("dataset", "index", "adapter", "fusion")] == [
        str(home / folder / "tuesday") for folder in ("data", "index", "adapters", "fusions")
    ]
    assert Index.load(home / "index" / "tuesday", tuesday).record["updated_from"] == figures["previous"]
    record = read_json(home / "adapters" / "tuesday" / "lorarec.json")
    assert record["start_from"]["path"] == str(adapter)
    assert record["datasets"][0]["fingerprint"] == tuesday.fingerprint
    weights = "adapter_model.safetensors"
    fused_weights = (home / "fusions" / "tuesday" / "adapters" / "mine" / weights).read_bytes()
    assert fused_weights != (home / "fusions" / "monday" / "adapters" / "mine" / weights).read_bytes()
    items = ("--item", "i50", "--item", "i30", "--fusion", home / "fusions" / "tuesday", *backbone)
    ranked = json.loads(run("rank", home / "data" / "tuesday", "--user", "u03", *items, "--json").stdout)
    assert {each["item_id"] for each in ranked} == {"i50", "i30"}
    evaluated = run("evaluate", home / "data" / "tuesday", *backbone, "--adapter", home / "adapters" / "tuesday")
    assert "warning" not in evaluated.stderr.lower()

    times = {path: path.stat().st_mtime_ns for path in home.glob("*/tuesday/*.json")}
    assert update(home, *given, *backbone, "--samples", "8", "--epochs", "1", "--resume") == figures
    assert {path: path.stat().st_mtime_ns for path in home.glob("*/tuesday/*.json")} == times
    (home / "tuesday.csv").write_text("user_id,item_id,timestamp\nu00,i00,900\nu01,i01,901\nu02,i02,902\nu03,i03,903\n")
    with pytest.raises(LorarecError, match="tuesday was not made by this update: choose another folder"):
        update(home, *given, *backbone, "--resume")


def test_a_fusion_of_an_earlier_version_is_refused_before_anything_is_written(
    home: Path, tiny_backbone, monkeypatch, capsys
) -> None:
    monday, fusion, adapter = (home / folder / "monday" for folder in ("data", "fusions", "adapters"))
    backbone = ("--backbone", save_backbone(tiny_backbone, home / "backbone"))
    adapter.mkdir(parents=True)
    data = Dataset.load(monday)
    trained_on = {"name": data.name, "fingerprint": data.fingerprint, "split": load_split(data).cases}
    trained = AdapterRecord(datasets=(trained_on,))
    save_adapter(random_adapter(tiny_backbone, 0), adapter, tiny_backbone.base_model, trained)
    options = [word for option in ("epochs=0", "hidden_size=8") for word in ("--set", f"unisrec.{option}")]
    run("fuse", monday, "--recommender", "unisrec", *options, "--pool", "0", "--cases", "10", "--out", fusion)
    tensors = load_file(fusion / "fusion.safetensors")
    former = {name: each for name, each in tensors.items() if "from_texts" not in name and "is_first" not in name}
    save_file(former, fusion / "fusion.safetensors")
    record = read_json(fusion / "fusion.json")
    write_json(fusion / "fusion.json", record | {"fingerprint": file_fingerprint(fusion / "fusion.safetensors")})
    run("rank", monday, "--user", "u03", "--item", "i30", "--item", "i31", "--fusion", fusion)
    capsys.readouterr()
    words = ["update", monday, "--events", home / "tuesday.csv", "--items", home / "items.csv", *backbone]
    words += ["--out", home / "data" / "tuesday", "--adapter", adapter, "--fusion", fusion]
    monkeypatch.setattr(sys, "argv", ["lorarec", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "UniSRec cannot be updated, since it was saved by an earlier version" in message
    assert "run `lorarec fuse` again" in message
    assert not list(home.glob("*/tuesday*"))


def test_a_fusion_that_has_other_adapters_only_is_told_of(tmp_path: Path, capsys) -> None:
    backbone, (dataset, split) = hot_backbone(), hot_log()
    old, new = (random_adapter(backbone, seed) for seed in range(2))
    config = FusionConfig(pool=0, cases=20)
    fusion = fuse(dataset, {"mine": old}, ["popularity"], backbone=backbone, split=split, config=config)
    for name, adapter in (("old", old), ("new", new)):
        (tmp_path / name).mkdir()
        save_adapter(adapter, tmp_path / name, backbone.base_model, adapter.record)
    assert _names_in_fusion(fusion, Path("fusions/monday"), tmp_path / "old") == ["mine"]
    assert capsys.readouterr().err == ""
    assert _names_in_fusion(fusion, Path("fusions/monday"), tmp_path / "new") == []
    warning = f"fusion fusions/monday does not have adapter {tmp_path / 'new'}: its own (mine) will stay"
    assert warning in capsys.readouterr().err


def test_folders_that_would_collide_or_are_something_else_are_refused(home: Path) -> None:
    monday = home / "data" / "monday"
    run("index", monday, "--out", home / "data" / "index", "--epochs", "0")
    with pytest.raises(LorarecError, match=r"the dataset and the index would both be written to .*data/tuesday"):
        update(home, "--index", home / "data" / "index")
    with pytest.raises(LorarecError, match="monday is not an index"):
        update(home, "--index", monday)
    with pytest.raises(LorarecError, match=r"monday is not an adapter folder .*: it has no lorarec.json"):
        update(home, "--adapter", monday)
    with pytest.raises(LorarecError, match="monday is not a fusion"):
        update(home, "--fusion", monday)
    assert not (home / "data" / "tuesday").exists()


def test_what_cannot_be_continued_is_refused_before_anything_is_written(home: Path, tiny_backbone) -> None:
    monday = Dataset.load(home / "data" / "monday")
    Index.build(monday, histories=load_split(monday).train).save(home / "index" / "monday")
    with pytest.raises(LorarecError, match="the index was not built by `lorarec index` of all interactions of"):
        update(home, "--index", home / "index" / "monday")
    save_backbone(tiny_backbone, home / "backbone")
    (home / "adapters" / "monday").mkdir(parents=True)
    record = AdapterRecord(datasets=({"name": "other", "fingerprint": "0123456789abcdef"},))
    save_adapter(random_adapter(tiny_backbone, 1), home / "adapters" / "monday", tiny_backbone.base_model, record)
    given = ("--adapter", home / "adapters" / "monday", "--backbone", home / "backbone")
    with pytest.raises(LorarecError, match=r"was trained on other .*: give an adapter of that dataset"):
        update(home, *given)
    (home / "adapters" / "tuesday").mkdir()
    save_adapter(
        random_adapter(tiny_backbone, 1), home / "adapters" / "tuesday", tiny_backbone.base_model, AdapterRecord()
    )
    with pytest.raises(LorarecError, match="tuesday was not made by this update: choose another folder"):
        update(home, *given, "--resume")
    assert not list(home.glob("data/tuesday")) + list(home.glob("index/tuesday"))
