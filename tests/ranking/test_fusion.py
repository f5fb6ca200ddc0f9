"""Fusions: fitting, leakage, saving, and what they refuse."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.io import read_json, write_json
from lorarec.lora import save_adapter
from lorarec.metrics import ndcg, target_ranks
from lorarec.prompts import true_places
from lorarec.ranking import Fusion, TrainedAdapter, fit_fusion, fuse
from lorarec.recommenders import (
    BPRMF,
    UPDATE_EPOCHS,
    BPRMFConfig,
    FusionConfig,
    GRU4Rec,
    GRU4RecConfig,
    Popularity,
    Recommender,
    SASRec,
    SASRecConfig,
    TrainingData,
    UniSRec,
    UniSRecConfig,
    new_recommender,
    with_validation_targets,
)
from lorarec.retrieval import Index
from tests.factories import circle_log, random_adapter

CHEAP = ("item-knn", "tf-idf", "popularity")


@pytest.fixture(scope="module")
def log() -> tuple[Dataset, Split]:
    """Items that follow each other in circles, a fifth of them new in one test setting; 20 candidates."""
    return circle_log("circles", new_items=0.2)


@pytest.fixture(scope="module")
def fusion(log: tuple[Dataset, Split]) -> Fusion:
    return fuse(log[0], recommenders=CHEAP, split=log[1], config=FusionConfig(hidden_items=0.2, pool=20))


def _mean_ndcg(scores: list[np.ndarray], cases: pl.DataFrame) -> float:
    return float(ndcg(target_ranks(scores, np.array(true_places(cases))), 10).mean())


def test_it_is_level_with_the_best_of_its_parts(log: tuple[Dataset, Split], fusion: Fusion) -> None:
    """Item-knn is the best part for known items, and TF-IDF for new ones."""
    for cases in log[1].test.values():
        best = max(_mean_ndcg(each.score(cases), cases) for each in fusion.group.recommenders.values())
        assert _mean_ndcg(fusion.score(cases), cases) > best - 0.03


def test_scores_are_log_probabilities_whose_parts_add_up(log: tuple[Dataset, Split], fusion: Fusion) -> None:
    cases = log[1].test["new-item"].head(5)
    for each in fusion.score_with_parts(cases):
        assert np.exp(each.log_probabilities).sum() == pytest.approx(1)
        assert list(each.parts) == [*CHEAP, "new item"]
        difference = each.log_probabilities - sum(each.parts.values())
        np.testing.assert_allclose(difference, difference[0])


def test_no_cases_have_no_scores(log: tuple[Dataset, Split], fusion: Fusion) -> None:
    assert fusion.score(log[1].test["warm"].clear()) == []


def test_the_prior_of_new_items(log: tuple[Dataset, Split], fusion: Fusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is estimated from many cases, and is the share of new items in the catalogue for few."""
    dataset, split = log
    new, warm = split.test["new-item"], split.test["warm"]
    monkeypatch.setattr("lorarec.ranking.fusion.MIN_CASES", 50)
    fusion.score(new)
    assert "without labels" in fusion.about
    share = 1 - len({item for history in split.train["history"] for item in history}) / len(dataset.titles)
    fusion.score(new.head(10))
    assert f"prior of new items {share:.3g} (share of new items in the catalogue)" in fusion.about
    always, never = fusion.with_new_item_prior(1.0), fusion.with_new_item_prior(0.0)
    assert _mean_ndcg(always.score(new), new) > _mean_ndcg(never.score(new), new)
    assert _mean_ndcg(fusion.score(new), new) > _mean_ndcg(never.score(new), new)
    assert _mean_ndcg(fusion.score(warm), warm) > _mean_ndcg(always.score(warm), warm)


def test_nothing_of_the_test_part_is_read(log: tuple[Dataset, Split], fusion: Fusion) -> None:
    dataset, split = log
    without = replace(split, test={})
    again = fuse(dataset, recommenders=CHEAP, split=without, config=fusion.config)
    np.testing.assert_array_equal(again.model.weights, fusion.model.weights)
    assert again.pool_model is not None
    assert fusion.pool_model is not None
    np.testing.assert_array_equal(again.pool_model.weights, fusion.pool_model.weights)


def test_shuffled_labels_give_chance() -> None:
    """Where users choose at random, the fusion ranks known and new targets as chance does: no label leaks."""
    dataset, split = circle_log("circles", shuffled=True, new_items=0.2)
    for prior in ("auto", 0.2):
        fusion = fuse(dataset, recommenders=CHEAP, split=split, config=FusionConfig(pool=0, new_item_prior=prior))
        same_kind = _cases_of_one_kind(split)
        chance = float(np.mean([ndcg(np.arange(1, n + 1), 10).mean() for n in same_kind["candidates"].list.len()]))
        assert _mean_ndcg(fusion.score(same_kind), same_kind) == pytest.approx(chance, abs=0.06)


def _cases_of_one_kind(split: Split) -> pl.DataFrame:
    """Return warm test cases with known candidates only, so that whether items are new says nothing."""
    known = split.train["history"].explode().unique().implode()
    cases = split.test["warm"].filter(pl.col("target").is_in(known))
    return cases.with_columns(pl.col("candidates").list.filter(pl.element().is_in(known)))


def test_recommenders_learn_from_validation_targets_and_the_weights_do_not(
    log: tuple[Dataset, Split], fusion: Fusion, tmp_path: Path
) -> None:
    """What counts is exactly what a fit to the longer histories gives, also after loading."""
    dataset, split = log
    targets = dict(split.valid.select("user_id", "target").iter_rows())
    known = set(split.train["history"].explode())
    longer = [
        [*history, targets[user]] if targets.get(user) in known else history
        for user, history in split.train.iter_rows()
    ]
    train = split.train.with_columns(pl.Series("history", longer))
    fitted = new_recommender("item-knn").fit(TrainingData(dataset, replace(split, train=train)))
    fusion.save(tmp_path / "fusion")
    for each in (fusion, Fusion.load(tmp_path / "fusion", dataset, split=split)):
        assert each.group.data.split.train.equals(train)
        for cases in split.test.values():
            extended = cases.with_columns(pl.col("candidates").list.filter(pl.element().is_in(list(known))))
            found = each.group.recommenders["item-knn"].score(extended)
            for one, two in zip(found, fitted.score(extended), strict=True):
                np.testing.assert_array_equal(one, two)
    alone = fuse(dataset, recommenders=CHEAP, split=split, config=replace(fusion.config, hold_out_validation=True))
    np.testing.assert_array_equal(alone.model.weights, fusion.model.weights)
    assert alone.group.data.split.train.equals(split.train)


def test_next_item_models_are_trained_further_on_validation_targets(
    log: tuple[Dataset, Split], trained: Fusion, shared_backbone: Backbone
) -> None:
    config = replace(trained.config, hold_out_validation=True)
    recommenders = {
        name: type(each)(each.config) for name, each in trained.group.recommenders.items() if name != "shop"
    }
    alone = fit_fusion(
        recommenders, TrainingData(log[0], replace(log[1], test={}), backbone=shared_backbone), config
    ).group
    longer = with_validation_targets(log[1])
    for name in ("sasrec", "recurrent", "texts"):
        before, after = alone.recommenders[name], trained.group.recommenders[name]
        data = replace(alone.data, split=longer)
        expected = before.update(data, alone.data, UPDATE_EPOCHS).tensors()
        assert any(not torch.equal(each, expected[key]) for key, each in before.tensors().items())
        for key, tensor in after.tensors().items():
            torch.testing.assert_close(tensor, expected[key], rtol=0, atol=0)


def test_what_cannot_be_updated_stays_as_it_was_fitted(log: tuple[Dataset, Split]) -> None:
    dataset, split = log
    config = BPRMFConfig(epochs=2, hidden_size=8)
    fusion = fuse(dataset, recommenders={"bpr": BPRMF(config)}, split=split, config=FusionConfig(pool=0))
    expected = BPRMF(config).fit(TrainingData(dataset, replace(split, test={})))
    cases = split.test["warm"].head(5).with_columns(pl.col("target").reshape((-1, 1)).arr.to_list().alias("candidates"))
    for one, two in zip(fusion.group.recommenders["bpr"].score(cases), expected.score(cases), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_fusion_of_an_earlier_version_did_not_learn_from_validation_targets(
    log: tuple[Dataset, Split], fusion: Fusion, tmp_path: Path
) -> None:
    dataset, split = log
    alone = fuse(
        dataset,
        recommenders=CHEAP,
        out=tmp_path / "fusion",
        split=split,
        config=replace(fusion.config, hold_out_validation=True),
    )
    record = read_json(tmp_path / "fusion" / "fusion.json")
    del record["options"]["hold_out_validation"]
    write_json(tmp_path / "fusion" / "fusion.json", record)
    loaded = Fusion.load(tmp_path / "fusion", dataset, split=split)
    assert loaded.config.hold_out_validation
    for one, two in zip(loaded.score(split.valid), alone.score(split.valid), strict=True):
        np.testing.assert_array_equal(one, two)


def test_candidates_of_an_index(log: tuple[Dataset, Split], fusion: Fusion) -> None:
    dataset, split = log
    index = Index.build(dataset, histories=split.train)
    history = split.test["warm"]["history"][0].to_list()
    pool = [each.item_id for each in index.propose(history, 20)]
    case = pl.DataFrame({"user_id": ["u"], "history": [history], "candidates": [pool]})
    scores = fusion.score_with_parts(case, pool=True)[0]
    assert list(scores.parts) == [*CHEAP, "index", "new item"]
    turned = case.with_columns(pl.col("candidates").list.reverse())
    other = fusion.score_with_parts(turned, pool=True)[0]
    for name in CHEAP:
        np.testing.assert_allclose(other.parts[name][::-1], scores.parts[name])
    assert not np.allclose(other.parts["index"][::-1], scores.parts["index"])


def test_a_fusion_of_an_earlier_version_keeps_its_index(
    log: tuple[Dataset, Split], fusion: Fusion, tmp_path: Path
) -> None:
    """Its last stage was fitted to candidates of an index without sequential rules."""
    dataset, split = log
    fusion.save(tmp_path / "fusion")
    assert "rules" in Fusion.load(tmp_path / "fusion", dataset, split=split).index().sources
    record = read_json(tmp_path / "fusion" / "fusion.json")
    del record["index_rules"]
    write_json(tmp_path / "fusion" / "fusion.json", record)
    loaded = Fusion.load(tmp_path / "fusion", dataset, split=split)
    assert "rules" not in loaded.index().sources
    loaded.with_new_item_prior(0.5).save(tmp_path / "again")
    assert "rules" not in Fusion.load(tmp_path / "again", dataset, split=split).index().sources
    for one, two in zip(loaded.score(split.valid), fusion.score(split.valid), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.fixture(scope="module")
def trained(log: tuple[Dataset, Split], shared_backbone: Backbone) -> Fusion:
    """A fusion of an adapter, two next-item models, one of texts, and popularity."""
    epochs = {"epochs": 2, "hidden_size": 8}
    recommenders: dict[str, Recommender] = {
        "sasrec": SASRec(SASRecConfig(**epochs)),
        "recurrent": GRU4Rec(GRU4RecConfig(**epochs)),
        "texts": UniSRec(UniSRecConfig(pretrain_epochs=0, **epochs)),
        "popularity": Popularity(),
    }
    adapter = random_adapter(shared_backbone, 1)
    config = FusionConfig(cases=40, pool=10, new_item_prior=0.2)
    return fuse(log[0], {"shop": adapter}, recommenders, backbone=shared_backbone, split=log[1], config=config)


def test_round_trip(trained: Fusion, log: tuple[Dataset, Split], shared_backbone: Backbone, tmp_path: Path) -> None:
    dataset, split = log
    trained.save(tmp_path / "fusion")
    loaded = Fusion.load(tmp_path / "fusion", dataset, shared_backbone, split)
    assert loaded.names == ["shop", "sasrec", "recurrent", "texts", "popularity"]
    assert loaded.config == trained.config
    cases = split.test["new-item"].head(4)
    for pool in (False, True):
        for found, expected in zip(
            loaded.score_with_parts(cases, pool=pool), trained.score_with_parts(cases, pool=pool), strict=True
        ):
            np.testing.assert_array_equal(found.log_probabilities, expected.log_probabilities)
            assert found.parts.keys() == expected.parts.keys()


def test_its_index_can_be_saved(trained: Fusion, log: tuple[Dataset, Split], tmp_path: Path) -> None:
    dataset, split = log
    made = trained.index()
    made.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index", dataset)
    assert list(loaded.sources) == list(made.sources)
    for history in split.valid["history"][:5].to_list():
        assert loaded.propose(history, 10) == made.propose(history, 10)


def test_another_adapter_in_its_place_is_refused(
    trained: Fusion, log: tuple[Dataset, Split], shared_backbone: Backbone, tmp_path: Path
) -> None:
    trained.save(tmp_path / "fusion")
    save_adapter(random_adapter(shared_backbone, 2), tmp_path / "fusion" / "adapters" / "shop", shared_backbone.id)
    with pytest.raises(LorarecError, match=r"the adapters in .* do not match fusion.json"):
        Fusion.load(tmp_path / "fusion", log[0], shared_backbone, log[1])


def test_given_scores_stand_for_the_adapter(trained: Fusion, log: tuple[Dataset, Split]) -> None:
    cases = log[1].test["warm"].head(3)
    adapter = trained.group.recommenders["shop"].score(cases)
    expected = trained.score_with_parts(cases)
    for found, each in zip(trained.score_with_parts(cases, given={"shop": adapter}), expected, strict=True):
        np.testing.assert_array_equal(found.log_probabilities, each.log_probabilities)


def test_given_scores_must_be_those_of_a_recommender(trained: Fusion, log: tuple[Dataset, Split]) -> None:
    cases = log[1].test["warm"].head(3)
    scores = trained.group.recommenders["shop"].score(cases)
    with pytest.raises(LorarecError, match=r"scores are given for 'shops', .*: choose from shop, sasrec, recurrent"):
        trained.score_with_parts(cases, given={"shops": scores})
    with pytest.raises(LorarecError, match="shop has scores of 2 cases for 3 cases"):
        trained.score_with_parts(cases, given={"shop": scores[:2]})


def test_adapters_get_the_evidence_of_the_training_part(
    log: tuple[Dataset, Split], tiny_backbone: Backbone, write_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    dataset, split = log
    meta = {"readout": "verdict", "options": {"evidence": True}}
    folder = write_adapter(tiny_backbone.model, tmp_path / "adapter", 1, meta)
    adapter = TrainedAdapter(tiny_backbone, folder).fit(TrainingData(dataset, split))
    assert adapter.scorer.evidence is not None
    assert len(adapter.score(split.valid.head(2))) == 2


@pytest.fixture
def saved(fusion: Fusion, tmp_path: Path) -> Path:
    fusion.save(tmp_path / "fusion")
    return tmp_path / "fusion"


def test_other_data_are_refused(saved: Path, log: tuple[Dataset, Split]) -> None:
    dataset, split = log
    other, _ = circle_log("others", words=("chair", "brush", "game", "guide"))
    with pytest.raises(LorarecError, match=r"was fitted to circles .* not to others"):
        Fusion.load(saved, other, split=split)
    with pytest.raises(LorarecError, match="fitted to another split of circles"):
        Fusion.load(saved, dataset, split=circle_log("circles", new_items=0.1)[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 9}, "has format 9: update lorarec"),
        ({"scorers": ["item-knn", "tf-idf", "psychic"]}, "has the adapter 'psychic': give its backbone"),
        ({"candidates": {"weights": {}}}, "is damaged"),
        ({"fingerprint": "0"}, "does not match fusion.json"),
        ({"options": {"cases": 0}}, "option cases"),
    ],
)
def test_damaged_records_are_named(saved: Path, log: tuple[Dataset, Split], change: dict, message: str) -> None:
    record = json.loads((saved / "fusion.json").read_text())
    (saved / "fusion.json").write_text(json.dumps(record | change))
    with pytest.raises(LorarecError, match=message) as caught:
        Fusion.load(saved, log[0], split=log[1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '"fusion"'])
def test_other_json_is_named(saved: Path, log: tuple[Dataset, Split], text: str) -> None:
    (saved / "fusion.json").write_text(text)
    with pytest.raises(LorarecError, match="fusion"):
        Fusion.load(saved, log[0], split=log[1])


def test_no_fusion(tmp_path: Path, log: tuple[Dataset, Split]) -> None:
    with pytest.raises(LorarecError, match="is not a fusion: make one with `lorarec fuse`"):
        Fusion.load(tmp_path, log[0], split=log[1])


def test_what_cannot_be_fused(log: tuple[Dataset, Split], tiny_backbone: Backbone, tmp_path: Path) -> None:
    dataset, split = log
    with pytest.raises(LorarecError, match="nothing to fuse"):
        fuse(dataset, recommenders=(), split=split)
    with pytest.raises(LorarecError, match="no recommender 'psychic': choose from"):
        fuse(dataset, recommenders=["psychic"], split=split)
    with pytest.raises(LorarecError, match="needs their backbone"):
        fuse(dataset, {"shop": "adapters/shop"}, split=split)
    with pytest.raises(LorarecError, match="stands for an adapter and a recommender"):
        fuse(dataset, {"tf-idf": random_adapter(tiny_backbone, 1)}, CHEAP, backbone=tiny_backbone, split=split)
    with pytest.raises(LorarecError, match="no validation cases"):
        fuse(dataset, recommenders=CHEAP, split=replace(split, valid=split.valid.head(0)))
    with pytest.raises(LorarecError, match="bpr: BPRMF cannot be saved in a fusion"):
        fuse(dataset, recommenders={"bpr": BPRMF()}, out=tmp_path / "out", split=split)
    with pytest.raises(LorarecError, match="mine: Unregistered cannot be saved in a fusion"):
        fuse(dataset, recommenders={"mine": Unregistered()}, out=tmp_path / "out", split=split)
    with pytest.raises(LorarecError, match="random: RandomOrder cannot be saved in a fusion"):
        fuse(dataset, recommenders=["random"], out=tmp_path / "out", split=split)
    with pytest.raises(LorarecError, match=r"cannot be called 'popular\.items': leave out the dot"):
        fuse(dataset, recommenders={"popular.items": Popularity()}, out=tmp_path / "out", split=split)
    assert not (tmp_path / "out").exists()


class Unregistered(Popularity):
    """A recommender that a saved fusion could not name."""


@pytest.mark.parametrize("name", ["index", "new item", "popularity, new item", "popularity x log history length"])
def test_names_of_other_parts_are_refused(log: tuple[Dataset, Split], tiny_backbone: Backbone, name: str) -> None:
    dataset, split = log
    with pytest.raises(LorarecError, match=f"cannot be called '{name}'"):
        fuse(dataset, recommenders={name: Popularity(), "popularity": Popularity()}, split=split)
    with pytest.raises(LorarecError, match=f"cannot be called '{name}'"):
        fuse(dataset, {name: random_adapter(tiny_backbone, 1)}, CHEAP, backbone=tiny_backbone, split=split)


def test_new_items_are_refused_where_the_fit_had_none(log: tuple[Dataset, Split]) -> None:
    """Their weights would be 0, and the prior would place all of them before all known ones."""
    dataset, split = log
    known = set(split.train["history"].explode())
    only_known = pl.col("candidates").list.filter(pl.element().is_in(list(known)))
    closed = replace(split, valid=split.valid.with_columns(only_known))
    fusion = fuse(dataset, recommenders=CHEAP, split=closed, config=FusionConfig(hidden_items=0, pool=0))
    assert len(fusion.score(closed.valid)) == len(closed.valid)
    new = sorted(dataset.titles.keys() - known)[0]
    cases = closed.valid.head(2).with_columns(pl.concat_list("candidates", pl.lit(new)).alias("candidates"))
    with pytest.raises(LorarecError, match=f"candidate '{new}' is a new item.*: fit it with option hidden_items above"):
        fusion.score(cases)


def test_a_fusion_without_a_pool(log: tuple[Dataset, Split]) -> None:
    fusion = fuse(log[0], recommenders=CHEAP, split=log[1], config=FusionConfig(pool=0))
    with pytest.raises(LorarecError, match="option pool"):
        fusion.score_with_parts(log[1].valid.head(1), pool=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_items": 1.0}, "option hidden_items must be at least 0 and below 1, got 1.0"),
        ({"new_targets": -1.0}, "option new_targets"),
        ({"new_item_prior": 2.0}, "option new_item_prior must be auto or between 0 and 1, got 2.0"),
        ({"new_item_prior": "often"}, "option new_item_prior"),
        ({"cases": 0}, "option cases"),
        ({"pool": -1}, "option pool"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        FusionConfig(**options)
