"""The verbs import, describe and split through the shell's eyes."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lorarec.commands.data import describe, import_app, split
from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError

app = typer.Typer()
app.add_typer(import_app, name="import")
app.command()(describe)
app.command()(split)


def _run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception:
        raise result.exception
    return result.stdout


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 20 users with 4 of 50 items each, titles in it; the second ten users share ten items."""
    items = [k if k < 40 else 40 + k % 10 for k in range(80)]
    rows = [f"u{k // 4},i{item},{1_400_000_000 + k},Title {item}" for k, item in enumerate(items)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,title", *rows]))
    return tmp_path / "log.csv"


def test_import_describe_split(log: Path, tmp_path: Path) -> None:
    assert "interactions" in _run("import", "table", log, "--out", tmp_path / "shop")
    figures = json.loads(_run("describe", tmp_path / "shop", "--json", "--plot", tmp_path / "shop.png"))
    assert (figures["users"], figures["items"], figures["interactions"]) == (20, 50, 80)
    assert (tmp_path / "shop.png").is_file()
    assert "title coverage" in _run("describe", tmp_path / "shop")
    drawn = json.loads(
        _run("split", tmp_path / "shop", "--new-items", "0.2", "--negatives", "9", "--seed", "3", "--json")
    )
    assert drawn["options"] == {"protocol": "leave-one-out", "new_items": 0.2, "negatives": 9, "seed": 3}
    assert Split.load(tmp_path / "shop" / "split").fingerprint == drawn["fingerprint"]
    with pytest.raises(LorarecError, match="exists already"):
        _run("split", tmp_path / "shop")
    assert "test warm" in _run(
        "split", tmp_path / "shop", "--protocol", "global-time", "--negatives", "5", "--overwrite"
    )


def test_import_options(log: Path, tmp_path: Path) -> None:
    info = json.loads(_run("import", "table", log, "--out", tmp_path / "one", "--name", "one", "--json"))
    assert info["name"] == "one"
    assert info["import"]["rows_read"] == 80
    (tmp_path / "half.csv").write_text("\n".join(log.read_text().splitlines()[:41]))
    _run("import", "table", tmp_path / "half.csv", "--out", tmp_path / "half")
    words = (
        "--without",
        tmp_path / "half",
        "--by",
        "users",
        "--by",
        "interactions",
        "--k-core",
        "2",
        "--keep-untitled",
        "--overwrite",
    )
    info = json.loads(_run("import", "table", log, "--out", tmp_path / "one", *words, "--json"))
    assert info["filters"][0].startswith("without the users of half")
    assert info["filters"][1].startswith("without the interactions of half")
    assert info["filters"][2] == "2-core"


def test_an_existing_folder_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "precious").touch()
    for words in (["movielens", tmp_path / "none"], ["amazon", tmp_path / "none"], ["table", tmp_path / "none.csv"]):
        with pytest.raises(LorarecError, match="shop exists already: choose another --out or pass --overwrite"):
            _run("import", *words, "--out", tmp_path / "shop")


def test_a_failed_import_leaves_nothing(log: Path, tmp_path: Path) -> None:
    log.write_text(log.read_text() + "\nu9,i9,yesterday,Title 9\n")
    with pytest.raises(LorarecError, match=r"log\.csv: line 82 has timestamp 'yesterday'"):
        _run("import", "table", log, "--out", tmp_path / "shop")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv"]


def test_sample_and_help(tmp_path: Path) -> None:
    info = json.loads(_run("import", "sample", "drama", "--out", tmp_path / "drama", "--json"))
    assert Dataset.load(tmp_path / "drama").info == info
    for verb in (
        ["import"],
        ["import", "table"],
        ["import", "amazon"],
        ["import", "movielens"],
        ["split"],
        ["describe"],
    ):
        assert "Usage" in _run(*verb, "--help")
