"""Scores that new items borrow from known items with similar titles, against a loop."""

from dataclasses import replace

import numpy as np
import polars as pl
from sklearn.feature_extraction.text import TfidfVectorizer

from lorarec.data import Dataset, Split
from lorarec.recommenders import ItemKNN, Popularity, ScorerGroup, TfIdf, TrainingData
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
