"""A fusion after an update: its recommenders are updated, its last stage stays, and an adapter can be replaced."""

import numpy as np
import polars as pl
import pytest

from lorarec.data import Dataset, Split, split_new_interactions
from lorarec.errors import LorarecError
from lorarec.ranking import DEFAULT_RECOMMENDERS, Fusion, adapter_names, fuse, update_fusion
from lorarec.recommenders import (
    FusionConfig,
    SASRec,
    SASRecConfig,
    TrainingData,
    new_recommender,
    with_validation_targets,
)
from tests.factories import hot_backbone, hot_log, random_adapter

CONFIG = FusionConfig(pool=20, cases=20)
SASREC = SASRecConfig(epochs=2, hidden_size=8, num_layers=1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Dataset:
    """The shop on disk."""
    dataset, split = hot_log()
    return dataset.save(tmp_path_factory.mktemp("data") / "shop", split=split)


@pytest.fixture(scope="module")
def grown(shop: Dataset, tmp_path_factory) -> Dataset:
    """The shop after an update, on disk."""
    again = shop.interactions.group_by("user_id", maintain_order=True).head(3)
    end = shop.interactions["timestamp"].max()
    larger = shop.append(again.with_columns(pl.int_range(pl.len()).alias("timestamp") + end + 1))
    split = split_new_interactions(larger, negatives=9)
    return larger.save(tmp_path_factory.mktemp("data") / "grown", split=split)


def test_counts_are_those_of_a_new_fit_and_the_last_stage_stays(shop, grown, tmp_path) -> None:
    recommenders = {
        "sasrec": SASRec(SASREC),
        **{name: new_recommender(name) for name in ("item-knn", "ease", "sequential-rules", "tf-idf")},
    }
    fuse(shop, None, recommenders, tmp_path / "fusion", config=CONFIG)
    fusion = Fusion.load(tmp_path / "fusion", shop)
    updated = update_fusion(fusion, grown, epochs=1)
    updated.save(tmp_path / "updated")
    split = Split.load(grown.folder / "split")
    data = TrainingData(grown, with_validation_targets(split))
    for name in ("item-knn", "ease", "sequential-rules", "tf-idf"):
        expected = new_recommender(name).fit(data).score(split.valid)
        for one, two in zip(updated.group.recommenders[name].score(split.valid), expected, strict=True):
            np.testing.assert_array_equal(one, two)
    assert updated.model is fusion.model
    assert updated.pool_model is fusion.pool_model
    assert updated.group.data.split.test == {}
    loaded = Fusion.load(tmp_path / "updated", grown)
    assert loaded.record == updated.record
    assert loaded.record["updated_from"] == shop.fingerprint
    for one, two in zip(loaded.score(split.valid), updated.score(split.valid), strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(LorarecError, match="was fitted to shop"):
        Fusion.load(tmp_path / "updated", shop)


def test_the_recommenders_by_default_are_updated_twice(shop, grown, tmp_path) -> None:
    small = {
        "sasrec": {"epochs": 1, "hidden_size": 8},
        "gru4rec": {"epochs": 1, "hidden_size": 8},
        "unisrec": {"epochs": 1, "hidden_size": 8, "num_experts": 2},
    }
    recommenders = {
        name: new_recommender(name, {**options, **small.get(name, {})})
        for name, options in DEFAULT_RECOMMENDERS.items()
    }
    fuse(shop, None, recommenders, tmp_path / "fusion", config=CONFIG)
    again = grown.interactions.group_by("user_id", maintain_order=True).head(2)
    end = grown.interactions["timestamp"].max()
    log = again.with_columns(pl.int_range(pl.len()).alias("timestamp") + end + 1)
    later = pl.DataFrame({"item_id": ["a0", "z0"], "title": ["hot lamp later", "cold thing"]})
    largest = grown.append(log, later, keep_unseen=True)
    largest = largest.save(tmp_path / "largest", split=split_new_interactions(largest, negatives=9))
    once = update_fusion(Fusion.load(tmp_path / "fusion", shop), grown, epochs=1)
    once.save(tmp_path / "once")
    twice = update_fusion(Fusion.load(tmp_path / "once", grown), largest, epochs=1)
    twice.save(tmp_path / "twice")
    loaded = Fusion.load(tmp_path / "twice", largest)
    cases = Split.load(largest.folder / "split").valid.with_columns(
        pl.concat_list("candidates", pl.lit(["a0", "z0"])).alias("candidates")
    )
    for one, two in zip(loaded.score(cases), twice.score(cases), strict=True):
        np.testing.assert_array_equal(one, two)
        assert np.isfinite(one).all()


def test_what_cannot_be_updated_is_refused_before_anything_is_trained(shop, grown, monkeypatch) -> None:
    recommenders = {"sasrec": SASRec(SASREC), "factors": new_recommender("bpr-mf", {"epochs": 1})}
    fusion = fuse(shop, None, recommenders, config=FusionConfig(pool=0, cases=20))
    monkeypatch.setattr(SASRec, "update", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(LorarecError, match="BPRMF cannot be updated: fit it again"):
        update_fusion(fusion, grown)
    del fusion.group.recommenders["factors"]
    with pytest.raises(LorarecError, match="the fusion has no adapter 'factors'"):
        update_fusion(fusion, grown, {"factors": "adapters/none"})


def test_an_adapter_is_replaced_by_name(shop, grown) -> None:
    backbone = hot_backbone()
    old, new = random_adapter(backbone, 0), random_adapter(backbone, 1)
    fusion = fuse(shop, {"shop": old}, ["item-knn"], backbone=backbone, config=FusionConfig(pool=0, cases=20))
    assert adapter_names(fusion, old) == ["shop"]
    assert adapter_names(fusion, new) == []
    kept = update_fusion(fusion, grown).group.recommenders["shop"]
    replaced = update_fusion(fusion, grown, {"shop": new}).group.recommenders["shop"]
    assert kept.adapter is old
    assert replaced.adapter is new
    with pytest.raises(LorarecError, match="the fusion has no adapter 'item-knn': it has shop"):
        update_fusion(fusion, grown, {"item-knn": new})
