"""Whole-catalogue recommendation: no items of the history, new items among the results, and reasons."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset, ItemFilter
from lorarec.errors import LorarecError
from lorarec.ranking import (
    Fusion,
    PopulationConfig,
    Ranker,
    fuse,
    rank_items,
    recommend,
    recommend_next,
    recommend_users,
)
from lorarec.recommenders import FusionConfig, NextItemConfig
from lorarec.retrieval import Boost, Index, ItemRules
from tests.factories import circle_log, dataset_of

TITLES = [
    "red lamp",
    "green lamp",
    "blue chair",
    "white chair",
    "big puzzle",
    "small puzzle",
    "new lamp guide",
    "brush",
]


@pytest.fixture
def dataset() -> Dataset:
    """Users a and b chose the same items, c other ones; item 6 is brand new, item 7 unrelated."""
    rows = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("b", 3), ("c", 4), ("c", 5), ("c", 7)]
    dated = [(user, str(item), at) for at, (user, item) in enumerate(rows)]
    return dataset_of(dated, {str(item): title for item, title in enumerate(TITLES)})


def test_recommendations(dataset: Dataset, tiny_backbone: Backbone) -> None:
    found = recommend(Ranker(tiny_backbone), dataset, "a", top_k=10)
    by_item = {item.item_id: item for item in found}
    assert not set(by_item) & {"0", "1", "2"}
    assert by_item["3"].source == "together"
    assert by_item["6"].source == "new"
    assert by_item["5"].source == "popular"
    assert set(by_item["3"].because) <= {"red lamp", "green lamp"}
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    assert sum(item.probability for item in found) == pytest.approx(1)


def test_the_posterior_is_the_rankers_times_one_over_the_place_in_the_pool(
    dataset: Dataset, tiny_backbone: Backbone
) -> None:
    index, ranker = Index.build(dataset), Ranker(tiny_backbone)
    history = ["0", "1", "2"]
    pool = [proposal.item_id for proposal in index.propose(history)]
    cases = pl.DataFrame({"user_id": ["a"], "history": [history], "candidates": [pool]})
    shares = np.exp(ranker.score_cases(cases, dataset.titles)[0].astype(np.float64)) / np.arange(1, len(pool) + 1)
    wanted = dict(zip(pool, shares / shares.sum(), strict=True))
    found = recommend(ranker, dataset, "a", index=index)
    assert {item.item_id: item.probability for item in found} == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
def test_a_score_is_what_the_ranker_gives_plus_the_log_of_the_prior(
    dataset: Dataset, tiny_backbone: Backbone, readout: str
) -> None:
    index, ranker = Index.build(dataset), Ranker(tiny_backbone, readout=readout)
    pool = [proposal.item_id for proposal in index.propose(["0", "1", "2"])]
    cases = pl.DataFrame({"user_id": ["a"], "history": [["0", "1", "2"]], "candidates": [pool]})
    given = dict(zip(pool, ranker.score_cases(cases, dataset.titles)[0].tolist(), strict=True))
    for item in recommend(ranker, dataset, "a", index=index):
        own, other = item.log_odds, item.log_likelihood
        own, other = (own, other) if readout == "verdict" else (other, own)
        assert other is None
        assert own == pytest.approx(given[item.item_id], abs=1e-5)
        assert item.log_prior == pytest.approx(-np.log(1 + pool.index(item.item_id)), abs=1e-6)
        assert item.score == pytest.approx(own + item.log_prior, abs=1e-5)


def test_top_cuts_the_list(dataset: Dataset, tiny_backbone: Backbone) -> None:
    assert len(recommend(Ranker(tiny_backbone), dataset, "a", top_k=2)) == 2


def test_unknown_user_is_named_with_examples(dataset: Dataset, tiny_backbone: Backbone) -> None:
    with pytest.raises(LorarecError, match="user zoe is not in dataset toy: its users are like a, b, c"):
        recommend(Ranker(tiny_backbone), dataset, "zoe")


def test_titles_without_a_word(tiny_backbone: Backbone) -> None:
    found = recommend(Ranker(tiny_backbone), dataset_of([("a", "0", 0)], {"0": "!", "1": "!"}), "a")
    assert [item.item_id for item in found] == ["1"]


def test_allowed_and_denied(dataset: Dataset, tiny_backbone: Backbone) -> None:
    ranker = Ranker(tiny_backbone)
    assert {item.item_id for item in recommend(ranker, dataset, "a", deny=["3", "6"])} == {"4", "5", "7"}
    assert {item.item_id for item in recommend(ranker, dataset, "a", allow=["0", "5", "7"], deny=["7"])} == {"5"}
    with pytest.raises(LorarecError, match="nothing of toy is left to recommend to user a"):
        recommend(ranker, dataset, "a", allow=["0", "1"])


def test_filtered_items_are_ranked_as_by_brute_force(tiny_backbone: Backbone) -> None:
    log, _ = circle_log("circles")
    prices = [str(row % 9) if row % 5 else None for row in range(log.items.height)]
    dataset = Dataset.from_frames("circles", log.interactions, log.items.with_columns(pl.Series("price", prices)))
    fusion = fuse(dataset, recommenders=("item-knn", "tf-idf", "popularity"), config=FusionConfig(pool=20))
    rules = ItemRules(where=[ItemFilter("price", "<=", 4)], boost=[Boost(ItemFilter("price", "=", 0), 2.0)])
    matching = [item for item, price in zip(dataset.titles, prices, strict=True) if price and int(price) <= 4]
    cheapest = {item for item, price in zip(dataset.titles, prices, strict=True) if price == "0"}
    for ranker in (Ranker(tiny_backbone), fusion):
        index = Index.build(dataset)
        history = dataset.history("u5")
        pool = [each.item_id for each in index.propose(history, 100, index.blocked(matching))]
        assert set(pool) == set(matching) - set(history)
        case = pl.DataFrame({"user_id": ["u5"], "history": [history], "candidates": [pool]})
        if isinstance(ranker, Fusion):
            scores = ranker.score_with_parts(case, pool=True)[0].log_probabilities
        else:
            scores = ranker.score_cases(case, dataset.titles)[0] - np.log(1 + np.arange(len(pool)))
        boosts = np.array([2.0 if item in cheapest else 0.0 for item in pool])
        order = np.argsort(-(scores + boosts), kind="stable")
        found = recommend(ranker, dataset, "u5", 100, 100, index, rules=rules)
        assert [item.item_id for item in found] == [pool[place] for place in order]
        assert [item.score for item in found] == pytest.approx(scores[order], abs=1e-5)
        assert [item.boost for item in found] == boosts[order].tolist()
        assert sum(item.probability for item in found) == pytest.approx(1)
    with pytest.raises(LorarecError, match=r"nothing of circles is left .* do not match the filters"):
        recommend(ranker, dataset, "u5", rules=ItemRules(where=[ItemFilter("price", ">", 99)]))


def test_at_most_one_item_per_word_of_a_title(dataset: Dataset, tiny_backbone: Backbone) -> None:
    kinds = pl.Series("kind", ["lamp", "lamp", "chair", "chair", "puzzle", "puzzle", "lamp", None])
    dataset = Dataset.from_frames("toy", dataset.interactions, dataset.items.with_columns(kinds))
    ranker, rules = Ranker(tiny_backbone), ItemRules(at_most={"kind": 1})
    every = [item.item_id for item in recommend(ranker, dataset, "a")]
    kept = [item for item in every if item != max(("4", "5"), key=every.index)]
    assert [item.item_id for item in recommend(ranker, dataset, "a", rules=rules)] == kept
    # The pool of two puzzles alone would leave one item.
    few = recommend(ranker, dataset, "a", top_k=2, pool=2, allow=["4", "5", "7"], rules=rules)
    assert len(few) == 2
    assert {item.item_id for item in few} & {"4", "5"}


def test_any_history(dataset: Dataset, tiny_backbone: Backbone) -> None:
    ranker = Ranker(tiny_backbone)
    index = Index.build(dataset, NextItemConfig(epochs=1, hidden_size=8))
    known = recommend(ranker, dataset, "a", index=index)
    assert recommend_next(ranker, index, dataset.titles, ["0", "1", "2"]) == known
    assert recommend_next(ranker, index, dataset.titles, ["0", "stranger", "1", "2"]) == known
    grown = recommend_next(ranker, index, dataset.titles, ["0", "1", "2", "4"])
    assert {item.item_id for item in grown} == {"3", "5", "6", "7"}
    assert {item.source for item in recommend_next(ranker, index, dataset.titles, [])} == {"popular"}
    assert recommend_next(ranker, index, dataset.titles, list("01234567")) == []


def test_several_users_at_once(dataset: Dataset, tiny_backbone: Backbone) -> None:
    ranker = Ranker(tiny_backbone)
    found = recommend_users(ranker, dataset, ["c", "a"], top_k=3)
    assert list(found) == ["c", "a"]
    for user, items in found.items():
        separate = recommend(ranker, dataset, user, top_k=3)
        assert [item.item_id for item in items] == [item.item_id for item in separate]
        assert [item.score for item in items] == pytest.approx([item.score for item in separate], abs=1e-4)


def test_given_items_are_ranked_as_their_titles(dataset: Dataset, tiny_backbone: Backbone) -> None:
    ranker = Ranker(tiny_backbone)
    found = rank_items(ranker, dataset, ["7", "3", "5"], user="a")
    assert found == ranker.rank(TITLES[:3], ["brush", "white chair", "small puzzle"])
    assert rank_items(ranker, dataset, ["7", "3", "5"], history=["0", "1", "2"], top_k=2) == found[:2]
    with pytest.raises(LorarecError, match="item 'x' is not in dataset toy"):
        rank_items(ranker, dataset, ["x"], user="a")
    with pytest.raises(LorarecError, match="needs a user of the dataset or a history"):
        rank_items(ranker, dataset, ["3"])


@pytest.fixture(scope="module")
def circles() -> tuple[Dataset, Fusion]:
    """A fusion of three recommenders, and its dataset."""
    dataset, split = circle_log("circles", new_items=0.2)
    config = FusionConfig(hidden_items=0.2, pool=20)
    return dataset, fuse(dataset, recommenders=("item-knn", "tf-idf", "popularity"), split=split, config=config)


def test_a_fusion_orders_the_pool_by_its_scores(circles: tuple[Dataset, Fusion]) -> None:
    dataset, fusion = circles
    user, other = dataset.interactions["user_id"].unique(maintain_order=True)[:2].to_list()
    history = dataset.history(user)
    pool = [each.item_id for each in Index.build(dataset, histories=fusion.group.data.split.train).propose(history, 15)]
    case = pl.DataFrame({"user_id": [user], "history": [history], "candidates": [pool]})
    (scores,) = fusion.score_with_parts(case, pool=True)
    order = np.argsort(-scores.log_probabilities, kind="stable").tolist()
    found = recommend(fusion, dataset, user, top_k=5, pool=15)
    assert [item.item_id for item in found] == [pool[place] for place in order[:5]]
    for item, place in zip(found, order[:5], strict=True):
        assert item.score == scores.log_probabilities[place]
        assert item.probability == pytest.approx(np.exp(item.score))
        assert item.parts == {name: part[place] for name, part in scores.parts.items()}
        assert item.log_odds is item.log_likelihood is item.log_prior is None
    several = recommend_users(fusion, dataset, [other, user], top_k=5, pool=15)
    assert [item.item_id for item in several[user]] == [item.item_id for item in found]


def test_a_fusion_and_an_index_of_its_own(circles: tuple[Dataset, Fusion]) -> None:
    dataset, fusion = circles
    index = Index.build(dataset)
    assert len(recommend_next(fusion, index, dataset.titles, [], top_k=3, pool=9)) == 3
    assert recommend_next(fusion, index, dataset.titles, list(dataset.titles)) == []
    history = dataset.interactions["item_id"][:3].to_list()
    only = recommend_next(fusion, index, dataset.titles, history, allow=index.items[-2:])
    assert {item.item_id for item in only} <= set(index.items[-2:])


def test_given_items_are_ranked_by_a_fusion(circles: tuple[Dataset, Fusion]) -> None:
    dataset, fusion = circles
    items, history = list(dataset.titles)[:6], list(dataset.titles)[6:9]
    case = pl.DataFrame({"user_id": [""], "history": [history], "candidates": [items]})
    (scores,) = fusion.score(case)
    found = rank_items(fusion, dataset, items, history=history)
    assert [row.index for row in found] == np.argsort(-scores, kind="stable").tolist()
    assert [row.probability for row in found] == pytest.approx([np.exp(row.score) for row in found])
    assert rank_items(fusion, dataset, items, history=history, top_k=2) == found[:2]
    with pytest.raises(LorarecError, match="needs at least one item"):
        rank_items(fusion, dataset, [], history=history)


def test_a_fusion_of_another_dataset_is_refused(circles: tuple[Dataset, Fusion], dataset: Dataset) -> None:
    fusion = circles[1]
    for refused in (lambda: recommend(fusion, dataset, "a"), lambda: rank_items(fusion, dataset, ["3"], user="a")):
        with pytest.raises(LorarecError, match=r"the fusion was fitted to circles .* not to toy"):
            refused()


@pytest.mark.parametrize(
    ("top_k", "pool", "message"),
    [
        (10, 3, "10 items cannot be recommended from a pool of 3 candidates: use a pool of at least 10, or ask for at"),
        (0, 3, "top_k must be at least 1, got 0"),
        (-1, 3, "top_k must be at least 1, got -1"),
        (1, 0, "1 items cannot be recommended from a pool of 0 candidates"),
    ],
)
def test_more_items_than_candidates_are_refused(
    dataset: Dataset, tiny_backbone: Backbone, tmp_path: Path, top_k: int, pool: int, message: str
) -> None:
    ranker, index = Ranker(tiny_backbone), Index.build(dataset)
    for refused in (
        lambda: recommend(ranker, dataset, "a", top_k, pool),
        lambda: recommend_next(ranker, index, dataset.titles, [], top_k, pool),
        lambda: PopulationConfig(tmp_path, top_k=top_k, pool=pool),
    ):
        with pytest.raises(LorarecError, match=message):
            refused()
