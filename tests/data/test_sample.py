"""The bundled sample: domains that suffice for the demo, and the script that made it."""

from importlib.resources import files
from pathlib import Path

import polars as pl
import pytest

from lorarec.data import leave_one_out, sample
from lorarec.data.sample import (
    GENERAL_DOMAINS,
    SPECIFIC_DOMAIN,
    build_sample,
    load_sample,
    load_whole_sample,
    sample_domains,
)
from lorarec.errors import LorarecError

README = """Summary
=======
Usage License
=============
Be kind.

Citation
========
Cite us.

Further Information About GroupLens
===================================
"""


def test_domains_share_no_item_and_are_large_enough() -> None:
    domains = {name: load_sample(name) for name in sample_domains()}
    assert list(domains) == [SPECIFIC_DOMAIN, *GENERAL_DOMAINS]
    ids = [item for dataset in domains.values() for item in dataset.items["item_id"]]
    assert len(ids) == len(set(ids))
    counts = {name: dataset.info["counts"] for name, dataset in domains.items()}
    assert counts[SPECIFIC_DOMAIN] == {"users": 604, "items": 1535, "interactions": 46567}
    assert all(counts[name]["users"] > 350 and counts[name]["items"] > 500 for name in GENERAL_DOMAINS)
    for dataset in domains.values():
        assert dataset.interactions["user_id"].value_counts()["count"].min() == 5
        assert dataset.info["filters"] == ["5-core"]


def test_the_specific_domain_has_a_warm_and_a_new_item_setting() -> None:
    split = leave_one_out(load_sample())
    assert split.test["warm"].height > 500
    assert split.test["new-item"].height > 500


def test_licence_and_citation_travel_with_the_data_and_it_stays_small() -> None:
    folder = files("lorarec.data") / "sample"
    licence = (folder / "LICENSE.txt").read_text(encoding="utf-8")
    assert "so long as it is distributed under these same license conditions" in licence
    assert "F. Maxwell Harper and Joseph A. Konstan. 2015" in licence
    assert sum(len((folder / name).read_bytes()) for name in ("ratings.parquet", "movies.parquet")) < 1 << 20


def test_unknown_domain() -> None:
    with pytest.raises(LorarecError, match="no domain 'opera': use one of action, thriller, comedy, drama"):
        load_sample("opera")


def test_build_from_the_published_folder(tmp_path: Path) -> None:
    source = tmp_path / "ml-latest-small"
    source.mkdir()
    (source / "ratings.csv").write_text("userId,movieId,rating,timestamp\n2,10,4.5,1400000001\n1,10,3.0,1400000000\n")
    (source / "movies.csv").write_text('movieId,title,genres\n10,"Heat, The (1995)",Action|Crime\n11,Unseen,Drama\n')
    with pytest.raises(LorarecError, match=r"README\.txt"):
        build_sample(source, tmp_path / "sample")
    (source / "README.txt").write_text("no terms")
    with pytest.raises(LorarecError, match="no licence and citation"):
        build_sample(source, tmp_path / "sample")
    (source / "README.txt").write_text(README)
    build_sample(source, tmp_path / "sample")
    assert pl.read_parquet(tmp_path / "sample" / "ratings.parquet").sort("user_id").rows() == [
        (1, 10, 1400000000, 3.0),
        (2, 10, 1400000001, 4.5),
    ]
    assert pl.read_parquet(tmp_path / "sample" / "movies.parquet").rows() == [(10, "Heat, The (1995)", "Action, Crime")]
    licence = (tmp_path / "sample" / "LICENSE.txt").read_text()
    assert "Be kind." in licence
    assert "Cite us." in licence
    assert "Further" not in licence


def test_whole_sample_is_one_log_with_genres_and_years() -> None:
    whole = load_whole_sample()
    assert whole.interactions["rating"].is_between(0.5, 5).all()
    assert "genres" in whole.items.columns
    assert whole.items["title"].str.contains(r"\(\d{4}\)$").mean() > 0.99
    assert set(load_sample().items["item_id"]) <= set(whole.items["item_id"])


def test_a_package_without_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "files", lambda package: tmp_path)
    sample._tables.cache_clear()
    for load in (load_sample, load_whole_sample):
        with pytest.raises(LorarecError, match="the bundled sample was removed from this installation"):
            load()
