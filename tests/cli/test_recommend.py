"""The verbs `index` and `recommend`."""

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import lorarec.ranking
from lorarec.data import Dataset
from lorarec.errors import LorarecError
from tests.command_line import run


def _run(*words: object) -> str:
    return run(*words).stdout


def _items(*words: object) -> list[dict[str, Any]]:
    return json.loads(_run("recommend", *words, "--json"))


@pytest.fixture
def indexed(shop: Path, tmp_path: Path) -> Path:
    _run("index", shop, "--epochs", "1", "--hidden-size", "8", "--out", tmp_path / "index")
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


def test_rules(shop: Path, indexed: Path, backbone_folder: Path, tmp_path: Path) -> None:
    data = Dataset.load(shop)
    columns = [pl.Series("price", [f"{row % 10}" for row in range(50)]), pl.Series("brand", ["Lux", "Nord"] * 25)]
    Dataset.from_frames("priced", data.interactions, data.items.with_columns(columns)).save(tmp_path / "priced")
    priced = (tmp_path / "priced", "--backbone", backbone_folder)
    rules = ("--where", "price <= 4", "--where", "price in 0,1,3", "--at-most", "brand=3", "--boost", "9:brand=Nord")
    found = _items(*priced, "--user", "u03", *rules)
    rows = [int(item["item_id"][1:]) for item in found]
    assert all(row % 10 in (0, 1, 3) for row in rows)
    assert [row % 2 for row in rows] == [1, 1, 1, 0, 0, 0]
    assert [item["boost"] for item in found] == [9, 9, 9, 0, 0, 0]
    assert "+9" in _run("recommend", *priced, "--user", "u03", *rules)
    _run("recommend", *priced, "--user", "u03", *rules, "--out", tmp_path / "scores")
    written = pl.read_parquet(tmp_path / "scores" / "part-*.parquet")
    assert written["item_ids"].to_list() == [[item["item_id"] for item in found]]
    for words, message in (
        (("--where", "prize<=4"), "filter prize<=4: the items of priced have no column 'prize': choose from item_id, "),
        (("--where", "cheap"), "'cheap' is not a filter"),
        (("--at-most", "brand"), "--at-most brand must be COLUMN=NUMBER"),
        (("--boost", "brand=Lux"), "--boost brand=Lux must be NUMBER:FILTER"),
    ):
        with pytest.raises(LorarecError, match=message):
            _run("recommend", *priced, "--user", "u03", *words)


def test_figures_of_an_index(shop: Path, indexed: Path) -> None:
    figures = json.loads(_run("index", shop, "--epochs", "0", "--out", indexed, "--overwrite", "--json"))
    assert figures["sources"] == ["together", "rules", "title", "new", "popular"]
    assert (figures["items"], figures["interactions"]) == (50, 80)
    assert figures["bytes"] == sum(path.stat().st_size for path in indexed.iterdir())


def test_an_index_of_a_text_encoder(shop: Path, text_encoder: str, backbone_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    _run("index", shop, "--epochs", "0", "--text-encoder", text_encoder, "--out", out)
    assert json.loads((out / "index.json").read_text())["text_encoder"]["id"] == text_encoder
    found = _items(shop, "--user", "u03", "--backbone", backbone_folder, "--index", out)
    assert {"title", "new"} & {item["source"] for item in found}


def test_every_user_has_a_row_of_a_file(shop: Path, backbone_folder: Path, tmp_path: Path) -> None:
    words = (
        "recommend",
        shop,
        "--all",
        "--backbone",
        backbone_folder,
        "--part-size",
        "7",
        "--top",
        "3",
        "--out",
        tmp_path / "scores",
    )
    figures = json.loads(_run(*words, "--json"))
    counts = {"users": 20, "parts": 3, "parts_before": 0, "users_with_nothing_left": 0}
    assert figures == {"folder": str(tmp_path / "scores"), **counts}
    assert "(users: 20, files: 3, written before: 3)" in _run(*words)
    rows = pl.read_parquet(tmp_path / "scores" / "part-*.parquet")
    histories = dict(Dataset.load(shop).interactions.group_by("user_id").agg("item_id").iter_rows())
    assert sorted(histories) == rows["user_id"].to_list()
    for user, items in rows.select("user_id", "item_ids").iter_rows():
        assert len(set(items)) == 3
        assert not set(items) & set(histories[user])


def test_options_of_the_other_executor(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match="add --executor ray"):
        _run("recommend", shop, "--all", "--workers", "2", "--out", tmp_path / "scores")


def test_without_ray(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "lorarec.ranking.ray_executor", raising=False)
    monkeypatch.delitem(vars(lorarec.ranking), "RayExecutor", raising=False)  # an earlier test may have loaded it
    with pytest.raises(LorarecError, match=r"--executor ray needs ray: pip install 'lorarec\[ray\]'"):
        _run("recommend", shop, "--all", "--executor", "ray", "--out", tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


def test_several_users_are_printed_or_written(shop: Path, backbone_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id\nu05\nu03\n")
    words = ("recommend", shop, "--backbone", backbone_folder, "--pool", "5", "--user", "u07")
    found = json.loads(_run(*words, "--user", "u01", "--json"))
    assert {user: len(items) for user, items in found.items()} == {"u07": 5, "u01": 5}  # no more than the pool has
    assert list(found) == ["u07", "u01"]
    listed = json.loads(_run(*words, "--users", tmp_path / "users.csv", "--json"))
    assert list(listed) == ["u03", "u05", "u07"]
    (tmp_path / "user.csv").write_text("user_id\nu05\n")
    assert list(json.loads(_run(*words[:-2], "--users", tmp_path / "user.csv", "--json"))) == ["u05"]
    _run(*words, "--users", tmp_path / "users.csv", "--out", tmp_path / "scores")
    rows = pl.read_parquet(tmp_path / "scores" / "part-*.parquet").select("user_id", "item_ids")
    assert dict(rows.iter_rows()) == {user: [item["item_id"] for item in items] for user, items in listed.items()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name users with --user or --users, or take all with --all"),
        (["--all"], "--all needs --out"),
        (["--all", "--user", "u01", "--out", "new"], "--all takes all users: give it without --user and --users"),
        (["--user", "u01", "--executor", "ray"], "--executor needs --out"),
        (["--all", "--out", "new", "--engine", "vllm"], "--engine cannot be used with --out"),
        (["--all", "--out", "new", "--deny", "list.txt"], "--deny cannot be used with --out"),
        (["--user", "u01", "--pool", "3", "--top", "4"], "--top 4 is more than the 3 candidates of --pool"),
        (["--all", "--out", "new", "--top", "101"], "--top 101 is more than the 100 .* raise --pool to 101 or more"),
    ],
)
def test_options_that_do_not_go_together(shop: Path, words: list[str], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        _run("recommend", shop, *words)
