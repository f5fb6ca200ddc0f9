"""Scores that new items borrow from known items with similar titles, against a loop."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.experiments.fusion_row import SYSTEMS
from lorarec.recommenders import ItemKNN, Popularity, ScorerGroup, TfIdf, TrainingData, divide_for_fusion
from tests.factories import dataset_of


def test_new_items_borrow(dataset: Dataset, split: Split) -> None:
    data = TrainingData(dataset, replace(split, test={}))
    cases = split.test["new-item"].head(8)
    group = ScorerGroup.fit({"popularity": Popularity(), "tf-idf": TfIdf()}, data)
    found = group.score(cases)
    vectors = TfidfVectorizer().fit_transform(list(dataset.titles.values())).toarray()
    vector = dict(zip(dataset.titles, vectors, strict=True))
    popularity, own = Popularity().fit(data), TfIdf().fit(data)
    row = 0
    for case in cases.iter_slices(1):
        for item, similarity in zip(case["candidates"][0], own.score(case)[0], strict=True):
            if item in data.train_index:
                expected = _score(popularity, case, item)
            else:
                cosines = np.array([vector[item] @ vector[known] for known in data.train_items])
                nearest = np.argsort(-cosines, kind="stable")[:5]
                scores = [_score(popularity, case, data.train_items[place]) for place in nearest]
                expected = float(np.average(scores, weights=cosines[nearest]))
            np.testing.assert_allclose(found.scores[row], [expected, similarity])
            assert found.new[row] == (item not in data.train_index)
            row += 1
    assert found.new.any()
    assert not found.new.all()
    assert found.sizes.tolist() == [10] * 8
    assert found.history_lengths.tolist() == [len(history) for history in cases["history"]]


def _score(recommender: Popularity, case: pl.DataFrame, item: str) -> float:
    return float(recommender.score(case.with_columns(pl.Series("candidates", [[item]])))[0][0])


def test_given_scores_are_used_as_they_are(dataset: Dataset, split: Split) -> None:
    data = TrainingData(dataset, replace(split, test={}))
    group = ScorerGroup.fit({"popularity": Popularity(), "item-knn": ItemKNN()}, data)
    cases = split.test["new-item"].head(3)
    given = [np.arange(10.0), np.arange(10.0) * 2, np.arange(10.0) * 3]
    found = group.score(cases, {"item-knn": given})
    np.testing.assert_array_equal(found.scores[:, 1], np.concatenate(given))
    np.testing.assert_array_equal(found.scores[:, 0], group.score(cases).scores[:, 0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"psychic": [np.zeros(10)] * 3}, "scores are given for 'psychic', .*: choose from popularity, item-knn"),
        ({"item-knn": [np.zeros(10)] * 2}, "item-knn has scores of 2 cases for 3 cases"),
        ({"item-knn": [np.zeros(10), np.zeros(9), np.zeros(11)]}, r"shape \(9,\) for the 10 candidates of case 1"),
        ({"item-knn": [np.zeros((10, 1))] * 3}, r"shape \(10, 1\) for the 10 candidates of case 0"),
    ],
)
def test_given_scores_of_other_recommenders_or_shapes_are_refused(
    dataset: Dataset, split: Split, given: dict, message: str
) -> None:
    data = TrainingData(dataset, replace(split, test={}))
    group = ScorerGroup.fit({"popularity": Popularity(), "item-knn": ItemKNN()}, data)
    with pytest.raises(LorarecError, match=message):
        group.score(split.test["new-item"].head(3), given)


class Unbounded(Popularity):
    """A recommender that gives the third candidate of the second case an infinite score."""

    def __init__(self, scores_new_items: bool, value: float) -> None:
        super().__init__()
        self.scores_new_items, self.value = scores_new_items, value  # type: ignore[misc]

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        scores = [each.astype(np.float64) for each in super().score(cases)]
        scores[1][2] = self.value
        return scores


@pytest.mark.parametrize("scores_new_items", [True, False])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_scores_that_are_not_finite_are_refused_by_the_name_of_the_recommender(
    dataset: Dataset, split: Split, scores_new_items: bool, value: float
) -> None:
    data = TrainingData(dataset, replace(split, test={}))
    group = ScorerGroup.fit({"popularity": Popularity(), "mine": Unbounded(scores_new_items, value)}, data)
    cases = split.test["warm"].head(3)
    item = cases["candidates"][1][2]
    with pytest.raises(LorarecError, match=f"mine gives item {item} the score {value}: leave out this recommender"):
        group.score(cases)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_case_without_candidates_is_refused(dataset: Dataset, split: Split, place: int) -> None:
    group = ScorerGroup.fit({"popularity": Popularity()}, TrainingData(dataset, split))
    candidates = split.valid["candidates"].head(3).to_list()
    candidates[place] = []
    cases = split.valid.head(3).with_columns(pl.Series("candidates", candidates, dtype=pl.List(pl.String)))
    with pytest.raises(LorarecError, match=rf"case {place} \(user {cases['user_id'][place]}\) has no candidates"):
        group.score(cases)


def test_titles_without_a_similar_one() -> None:
    """An item that resembles none gets the mean of the known candidates, or 0 where there are none."""
    titles = {"a": "red lamp", "b": "blue lamp", "x": "unique"}
    rows = [(user, item, at) for user in "uvw" for at, item in enumerate("aab" if user == "w" else "ab")]
    dataset = dataset_of(rows, titles)
    train = pl.DataFrame({"user_id": list("uvw"), "history": [["a", "b"], ["a"], ["a"]]})
    split = Split(train, train.head(0), {}, {"fingerprint": "f", "options": {}})
    group = ScorerGroup.fit({"popularity": Popularity()}, TrainingData(dataset, split))
    cases = pl.DataFrame({"user_id": ["u", "u"], "history": [["a"], ["a"]], "candidates": [["a", "x", "b"], ["x"]]})
    found = group.score(cases)
    np.testing.assert_array_equal(found.scores[:, 0], [3, 2, 1, 0])
    assert found.new.tolist() == [False, True, False, True]


def test_systems_that_score_new_items_by_what_they_learned_are_known() -> None:
    """A new system belongs into one of the rows of the table in docs/concepts/fusion.md."""
    own = {name for name, system in SYSTEMS.items() if system.scores_new_items}
    assert own == {*("tf-idf", "text-similarity", "zero-shot"), *("unisrec", "vq-rec", "recformer")} | {
        *("general", "specific", "hybrid", "tallrec", "second-round"),
        *("mixture-equal", "mixture-grid", "mixture-entropy", "mixture-agreement"),
    }


class SeenItems(Popularity):
    """A recommender that scores new items by what it learned: the number of interactions with all known items."""

    scores_new_items = True

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        return [scores - self.counts.sum() for scores in super().score(cases)]


def test_a_recommender_that_scores_new_items_keeps_what_it_learned_and_others_are_fitted_again(
    dataset: Dataset, split: Split
) -> None:
    data = TrainingData(dataset, split)
    divided = divide_for_fusion(split, hidden_items=0.3)
    group = ScorerGroup.fit({"own": SeenItems(), "popularity": Popularity()}, replace(data, split=divided.split))
    fitted, used = group.score(divided.cases), group.refit(data).score(divided.cases)
    again = ScorerGroup.fit({"own": SeenItems(), "popularity": Popularity()}, data).score(divided.cases)
    assert len(divided.hidden) > 0
    np.testing.assert_array_equal(used.scores[:, 0], fitted.scores[:, 0])
    np.testing.assert_array_equal(used.scores[:, 1], again.scores[:, 1])
    assert not np.array_equal(again.scores[:, 0], fitted.scores[:, 0])
    assert not np.array_equal(again.scores[:, 1], fitted.scores[:, 1])


def test_a_refitted_group_is_one_that_is_fitted_to_the_other_data(dataset: Dataset, split: Split) -> None:
    data = TrainingData(dataset, split)
    less = replace(data, split=replace(split, train=split.train.head(20)))
    recommenders = {"popularity": Popularity(), "item-knn": ItemKNN()}
    group = ScorerGroup.fit(recommenders, less)
    before, cases = group.score(split.valid), split.valid
    np.testing.assert_array_equal(
        group.refit(data).score(cases).scores, ScorerGroup.fit(recommenders, data).score(cases).scores
    )
    np.testing.assert_array_equal(group.score(cases).scores, before.scores)


@pytest.mark.parametrize("column", ["candidates", "history"])
def test_items_that_the_dataset_does_not_have_are_refused(dataset: Dataset, split: Split, column: str) -> None:
    data = TrainingData(dataset, replace(split, test={}))
    group = ScorerGroup.fit({"popularity": Popularity(), "item-knn": ItemKNN()}, data)
    cases = split.valid.head(2).with_columns(pl.concat_list(column, pl.lit("elsewhere")).alias(column))
    with pytest.raises(LorarecError, match=f"item 'elsewhere' in the {column} of user .* is not in dataset"):
        group.score(cases)


def test_cases_without_a_list_of_candidates_are_refused(dataset: Dataset, split: Split) -> None:
    group = ScorerGroup.fit({"popularity": Popularity()}, TrainingData(dataset, replace(split, test={})))
    cases = split.valid.head(2).with_columns(pl.Series("candidates", [["x"], None], dtype=pl.List(pl.String)))
    with pytest.raises(LorarecError, match=r"case 1 .* has no candidates"):
        group.score(cases)
