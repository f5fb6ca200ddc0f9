"""A population in parts: one row per user after any interruption, and no parts of another run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import lorarec
from lorarec.backbone import Backbone
from lorarec.data import Dataset, ItemFilter
from lorarec.errors import LorarecError
from lorarec.io import run_dir
from lorarec.ranking import Ranker, recommend
from lorarec.ranking.population import LocalExecutor, PopulationConfig, PopulationScorer, read_population
from lorarec.ranking.population_parts import Part, recommend_to_folder, split_into_parts
from lorarec.retrieval import Boost, Index, ItemRules


@pytest.fixture(scope="module")
def executor(config: PopulationConfig, shop: Dataset) -> LocalExecutor:
    return LocalExecutor(config, shop)


def _read(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "part-*.parquet")


def test_parts_hold_the_recommendations_of_each_user(
    executor: LocalExecutor, config: PopulationConfig, shop: Dataset, expected: pl.DataFrame, tmp_path: Path
) -> None:
    users = read_population(shop)
    assert recommend_to_folder(executor, users, tmp_path / "out", 50) == {"users": 161, "parts": 4, "parts_before": 0}
    found = _read(tmp_path / "out")
    assert found["user_id"].to_list() == users
    assert_frame_equal(found, expected, abs_tol=1e-5)
    assert found.filter(user_id="all")["item_ids"].to_list() == [[]]
    index = Index.load(config.index, shop)
    with Ranker(Backbone.from_pretrained(config.backbone.id), config.adapter) as ranker:
        for user in ("u000", "u101"):
            items = recommend(ranker, shop, user, 5, 20, index)
            row = found.row(by_predicate=pl.col("user_id") == user, named=True)
            assert row["item_ids"] == [item.item_id for item in items]
            assert row["scores"] == pytest.approx([item.score for item in items], abs=1e-4)
            assert row["log_odds"] == pytest.approx([item.log_odds for item in items], abs=1e-4)
            assert row["log_priors"] == pytest.approx([item.log_prior for item in items], abs=1e-6)
            assert row["log_likelihoods"] == [None] * len(items)
            assert row["probabilities"] == pytest.approx([item.probability for item in items], abs=1e-5)
    record = json.loads((tmp_path / "out" / "rank.json").read_text())
    assert record["complete"]
    assert record["counts"] == {"users": 161, "parts": 4}
    assert record["made_of"]["dataset"] == shop.fingerprint
    assert {"torch", "python"} <= record["versions"].keys()


def test_rules_hold_for_every_user_and_belong_to_the_run(
    config: PopulationConfig, shop: Dataset, tmp_path: Path
) -> None:
    rules = ItemRules(
        where=[ItemFilter("title", "contains", "table")], boost=[Boost(ItemFilter("title", "contains", "old"), 5.0)]
    )
    executor, users = LocalExecutor(replace(config, rules=rules), shop), ["all", "u000", "u001", "u101"]
    recommend_to_folder(executor, users, tmp_path / "out")
    rows = _read(tmp_path / "out")
    assert rows["item_ids"].list.len().to_list() == [0, 5, 5, 5]
    tables = {item for item, title in shop.titles.items() if "table" in title}
    with Ranker(Backbone.from_pretrained(config.backbone.id), config.adapter) as ranker:
        index = Index.load(config.index, shop)
        for row in rows.iter_rows(named=True):
            assert set(row["item_ids"]) <= tables - set(shop.history(row["user_id"]))
            if row["user_id"] != "all":
                items = recommend(ranker, shop, row["user_id"], 5, 20, index, rules=rules)
                assert row["item_ids"] == [item.item_id for item in items]
                assert row["boosts"] == [item.boost for item in items]
    assert json.loads((tmp_path / "out" / "rank.json").read_text())["made_of"]["rules"] == rules.as_dict()
    assert "rules" not in PopulationScorer(config, shop).identity()
    with pytest.raises(LorarecError, match="other"):
        recommend_to_folder(LocalExecutor(config, shop), users, tmp_path / "out")


def test_killed_run_resumes_with_the_missing_parts(
    executor: LocalExecutor, config: PopulationConfig, shop: Dataset, expected: pl.DataFrame, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["recommend", config.dataset, "--all", "--adapter", config.adapter, "--index", config.index]
    words += ["--backbone", config.backbone.id, "--top", "5", "--pool", "20", "--part-size", "1", "--out", out]
    running = subprocess.Popen(
        [sys.executable, "-m", "lorarec", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(Path(lorarec.__file__).parents[1])},
    )
    while len(list(out.glob("part-*"))) < 3:
        assert running.poll() is None
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.wait()
    (out / ".part-000160.parquet.a1b2c3d4.tmp").write_bytes(b"half")
    before = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert not json.loads((out / "rank.json").read_text())["complete"]
    figures = recommend_to_folder(executor, read_population(shop), out, part_size=1)
    assert figures == {"users": 161, "parts": 161, "parts_before": len(before)}
    assert 3 <= len(before) < 161
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted(path.name for path in out.iterdir()) == [*(f"part-{i:06}.parquet" for i in range(161)), "rank.json"]
    assert_frame_equal(_read(out), expected, abs_tol=1e-5)


class _Interrupted:
    """An executor that is interrupted while it works on a part; the parts before it are written."""

    def __init__(self, executor: LocalExecutor, at: int) -> None:
        self.executor, self.at, self.identity = executor, at, executor.identity

    def run(self, parts: Sequence[Part], out: Path) -> Iterator[int]:
        yield from self.executor.run(parts[: self.at], out)
        raise KeyboardInterrupt


def test_an_interrupted_run_ends_with_the_bytes_of_an_uninterrupted_one(
    executor: LocalExecutor, shop: Dataset, tmp_path: Path
) -> None:
    users = read_population(shop)[:20]
    recommend_to_folder(executor, users, tmp_path / "whole", 6)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    for overwrite in (False, True):
        for at in (0, 1, 3):
            out = tmp_path / f"cut {overwrite} {at}"
            if overwrite:
                recommend_to_folder(executor, users[:5], out)
            with pytest.raises(KeyboardInterrupt):
                recommend_to_folder(_Interrupted(executor, at), users, out, 6, overwrite)
            counts = recommend_to_folder(executor, users, out, 6, overwrite)
            assert counts == {"users": 20, "parts": 4, "parts_before": at}
            assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
    assert not list(tmp_path.glob("*.work"))


def test_damaged_and_foreign_parts_are_made_again(
    executor: LocalExecutor, expected: pl.DataFrame, shop: Dataset, tmp_path: Path
) -> None:
    out, users = tmp_path / "out", read_population(shop)
    recommend_to_folder(executor, users, out, 50)
    whole = (out / "part-000001.parquet").read_bytes()
    (out / "part-000000.parquet").write_bytes(whole)
    (out / "part-000001.parquet").write_bytes(whole[:-9])
    assert recommend_to_folder(executor, users, out, 50)["parts_before"] == 2
    assert_frame_equal(_read(out), expected, abs_tol=1e-5)
    assert recommend_to_folder(executor, users, out, 50)["parts_before"] == 4


def test_folder_of_another_run_is_refused(
    config: PopulationConfig, executor: LocalExecutor, shop: Dataset, tmp_path: Path
) -> None:
    out, users = tmp_path / "out", read_population(shop)[:4]
    recommend_to_folder(executor, users, out, 2)
    with pytest.raises(LorarecError, match=r"holds another recommendation run: part_size was 2 and is now 3: choose"):
        recommend_to_folder(executor, users, out, 3)
    with pytest.raises(LorarecError, match=r"another recommendation run: users was \w{16} and is now \w{16}: choose"):
        recommend_to_folder(executor, users[:3], out, 2)
    bare = LocalExecutor(replace(config, adapter=None, top_k=3), shop)
    with pytest.raises(LorarecError, match=r"adapter was \w{16} and is now None \(also different: top\): choose"):
        recommend_to_folder(bare, users, out, 2)
    recommend_to_folder(bare, users[:3], out, 2, overwrite=True)
    assert _read(out)["user_id"].to_list() == users[:3]
    (out / "rank.json").write_text("[]")
    with pytest.raises(LorarecError, match=r"rank\.json does not say"):
        recommend_to_folder(executor, users, out, 2)
    (out / "rank.json").unlink()
    with pytest.raises(LorarecError, match="out exists already"):
        recommend_to_folder(executor, users, out, 2)


def test_a_folder_beside_it_that_is_the_users_own_is_kept(
    executor: LocalExecutor, config: PopulationConfig, shop: Dataset, tmp_path: Path
) -> None:
    """A run that replaces a folder writes to OUT.work, and removes what another such run left there, nothing else."""
    out, work, users = tmp_path / "out", tmp_path / "out.work", read_population(shop)[:2]
    recommend_to_folder(executor, users, out)
    work.mkdir()
    (work / "notes.txt").write_text("mine")
    with pytest.raises(LorarecError, match=r"out\.work is no recommendations folder.*remove it yourself"):
        recommend_to_folder(executor, users, out, overwrite=True)
    assert (work / "notes.txt").read_text() == "mine"
    (work / "notes.txt").rename(work / ".rank.json.a1b2c3d4.tmp")  # of a run that was killed while it wrote its record
    recommend_to_folder(executor, users, out, overwrite=True)
    recommend_to_folder(LocalExecutor(replace(config, top_k=3), shop), users, work)
    recommend_to_folder(executor, users, out, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_first_write_that_fails_leaves_no_empty_folder(
    executor: LocalExecutor, shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise LorarecError("cannot write to rank.json: No space left on device")

    monkeypatch.setattr(run_dir, "write_json", full)
    with pytest.raises(LorarecError, match="No space left"):
        recommend_to_folder(executor, read_population(shop)[:2], tmp_path / "runs" / "out")
    assert list(tmp_path.iterdir()) == []


class _Elsewhere(LocalExecutor):
    """A worker on another machine, where the path of the folder is another folder."""

    def run(self, parts: Sequence[Part], out: Path) -> Iterator[int]:
        (out.parent / "elsewhere").mkdir()
        return super().run(parts, out.parent / "elsewhere")


def test_folder_that_is_not_shared(config: PopulationConfig, shop: Dataset, tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match=r"out lacks 2 of its parts, the first is part-000000\.parquet.*share"):
        recommend_to_folder(_Elsewhere(config, shop), read_population(shop)[:4], tmp_path / "out", 2)


@given(st.lists(st.text(), unique=True), st.integers(1, 9))
def test_every_user_is_in_one_part(users: list[str], size: int) -> None:
    parts = split_into_parts(users, size)
    assert [user for part in parts for user in part.users] == users
    assert [part.number for part in parts] == list(range(len(parts)))
    assert all(len(part.users) == size for part in parts[:-1])
    assert all(part.users for part in parts)


def test_users_of_a_table(shop: Dataset, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("age,user_id\n30,u002\n,u001\n31,u002\n")
    assert read_population(shop, tmp_path / "users.csv") == ["u001", "u002"]
    pl.DataFrame({"user_id": ["u002"]}).write_parquet(tmp_path / "users.parquet")
    assert read_population(shop, tmp_path / "users.parquet") == ["u002"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id\nu001\nzoe\nyan\n", r"users\.csv: dataset shop lacks 2 of its users, the first is 'yan'"),
        ("user\nu001\n", r"users\.csv: no column user_id \(there are user\)"),
        ("user_id\n", r"users\.csv names no user"),
        ("", r"users\.csv is empty"),
    ],
)
def test_table_without_users(shop: Dataset, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "users.csv").write_text(text)
    with pytest.raises(LorarecError, match=message):
        read_population(shop, tmp_path / "users.csv")
