"""The verb rank through the shell's eyes."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from lorarec.cli.rank import rank
from lorarec.data import Dataset
from lorarec.errors import LorarecError

app = typer.Typer()
app.command()(rank)


def _run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception:
        raise result.exception
    return result.stdout


def test_every_user_has_a_row(shop: Path, backbone_folder: Path, tmp_path: Path) -> None:
    words = (shop, "--backbone", backbone_folder, "--part-size", "7", "--top", "3", "--out", tmp_path / "scores")
    figures = json.loads(_run(*words, "--json"))
    counts = {"users": 20, "parts": 3, "parts_before": 0, "users_with_nothing_left": 0}
    assert figures == {"folder": str(tmp_path / "scores"), **counts}
    assert "20 users ranked in 3 parts, 3 of them before" in _run(*words)
    rows = pl.read_parquet(tmp_path / "scores" / "part-*.parquet")
    histories = dict(Dataset.load(shop).interactions.group_by("user_id").agg("item_id").iter_rows())
    assert sorted(histories) == rows["user_id"].to_list()
    for user, items in rows.select("user_id", "item_ids").iter_rows():
        assert len(set(items)) == 3
        assert not set(items) & set(histories[user])


def test_options_of_the_other_engine(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match="add --engine ray"):
        _run(shop, "--workers", "2", "--out", tmp_path / "scores")


def test_without_ray(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "lorarec.ranking.ray_executor", raising=False)
    with pytest.raises(LorarecError, match=r"--engine ray needs ray: pip install 'lorarec\[ray\]'"):
        _run(shop, "--engine", "ray", "--out", tmp_path / "scores")
    assert not (tmp_path / "scores").exists()
