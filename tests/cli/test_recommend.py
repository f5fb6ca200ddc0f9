"""The verbs index and recommend through the shell's eyes."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from lorarec.cli.index import index
from lorarec.cli.recommend import recommend
from lorarec.data import Dataset

app = typer.Typer()
app.command()(index)
app.command()(recommend)


def _run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception:
        raise result.exception
    return result.stdout


def _items(*words: object) -> list[dict[str, Any]]:
    return json.loads(_run("recommend", *words, "--json"))


@pytest.fixture
def indexed(shop: Path, tmp_path: Path) -> Path:
    _run("index", shop, "--epochs", "1", "--width", "8", "--out", tmp_path / "index")
    return tmp_path / "index"


def test_from_a_log_to_recommendations(shop: Path, indexed: Path, backbone_folder: Path) -> None:
    user = (shop, "--user", "u03", "--backbone", backbone_folder, "--pool", "30")
    history = set(Dataset.load(shop).interactions.filter(user_id="u03")["item_id"])
    quick, found = _items(*user), _items(*user, "--index", indexed, "--top", "30")
    assert len(quick) == 10
    assert len(found) == 30
    assert "next" in {item["source"] for item in found} - {item["source"] for item in quick}
    assert not {item["item_id"] for item in [*quick, *found]} & history
    assert "why" in _run("recommend", *user, "--index", indexed)


def test_lists_of_items(shop: Path, indexed: Path, backbone_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "allow.txt").write_text("i30\n\ni31\ni32\r\ni33\nstranger\n")
    (tmp_path / "deny.txt").write_text("i30\n")
    (tmp_path / "gone.txt").write_text("i31")
    (tmp_path / "empty.txt").write_text("\n")
    user = (shop, "--user", "u00", "--backbone", backbone_folder, "--index", indexed)
    only = ("--allow", tmp_path / "allow.txt", "--deny", tmp_path / "deny.txt")
    found = _items(*user, *only, "--out-of-stock", tmp_path / "gone.txt")
    assert {item["item_id"] for item in found} == {"i32", "i33"}
    assert _items(*user, "--deny", tmp_path / "empty.txt") == _items(*user)


def test_figures_of_an_index(shop: Path, indexed: Path) -> None:
    figures = json.loads(_run("index", shop, "--epochs", "0", "--out", indexed, "--overwrite", "--json"))
    assert figures["sources"] == ["together", "title", "new", "popular"]
    assert (figures["items"], figures["interactions"]) == (50, 80)
    assert figures["bytes"] == sum(path.stat().st_size for path in indexed.iterdir())
