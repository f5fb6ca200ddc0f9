"""Baselines against loops over words and counts."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from lorarec.data import Dataset, Split, leave_one_out, read_table
from lorarec.errors import LorarecError
from lorarec.evaluation import evaluate
from lorarec.recommenders import (
    ItemKNN,
    Popularity,
    RandomOrder,
    Recommender,
    SimilarityConfig,
    TfIdf,
    TrainingData,
)


def test_popularity_counts_training_interactions_only(dataset: Dataset, split: Split) -> None:
    counts = Counter(item for history in split.train["history"] for item in history)
    cases = split.test["new-item"]
    found = Popularity().fit(TrainingData(dataset, split)).score(cases)
    expected = [[counts[item] for item in candidates] for candidates in cases["candidates"]]
    assert [scores.tolist() for scores in found] == expected
    new = set(cases["target"])
    assert new
    assert not new & counts.keys()


def test_tf_idf_equals_a_loop(dataset: Dataset, split: Split) -> None:
    vectors = TfidfVectorizer().fit_transform(list(dataset.titles.values())).toarray()
    vector = dict(zip(dataset.titles, vectors, strict=True))
    cases = split.test["warm"]
    found = TfIdf(SimilarityConfig(max_history=2)).fit(TrainingData(dataset, split)).score(cases)
    for scores, history, candidates in zip(found, cases["history"], cases["candidates"], strict=True):
        profile = sum(vector[item] for item in history.to_list()[-2:])
        np.testing.assert_allclose(scores, [profile @ vector[item] for item in candidates])


def test_candidate_sets_of_different_sizes(dataset: Dataset, split: Split) -> None:
    cases = split.test["warm"].head(3)
    sizes = [1, 4, 10]
    truncated = pl.Series("candidates", [c.to_list()[:n] for c, n in zip(cases["candidates"], sizes, strict=True)])
    truncated_cases = cases.with_columns(truncated)
    data = TrainingData(dataset, split)
    for recommender in (Popularity().fit(data), TfIdf().fit(data)):
        whole, found = recommender.score(cases), recommender.score(truncated_cases)
        for all_scores, scores, size in zip(whole, found, sizes, strict=True):
            np.testing.assert_allclose(scores, all_scores[:size])
    assert [len(scores) for scores in RandomOrder().fit(data).score(truncated_cases)] == sizes


def test_titles_without_words_and_empty_histories_score_zero(dataset: Dataset, split: Split) -> None:
    items = dataset.items.with_columns(pl.lit("?").alias("title"))
    cases = split.test["warm"]
    assert not np.concatenate(TfIdf().fit(TrainingData(replace(dataset, items=items), split)).score(cases)).any()
    nothing = cases.with_columns(pl.Series("history", [[]] * len(cases), dtype=pl.List(pl.String)))
    assert not np.concatenate(TfIdf().fit(TrainingData(dataset, split)).score(nothing)).any()


@pytest.mark.parametrize("baseline", [RandomOrder, Popularity, ItemKNN, TfIdf])
def test_no_cases_have_no_scores(baseline: type[Recommender], dataset: Dataset, split: Split) -> None:
    assert baseline().fit(TrainingData(dataset, split)).score(split.test["warm"].clear()) == []


def test_random_is_seeded(dataset: Dataset, split: Split) -> None:
    cases = split.test["warm"]
    data = [TrainingData(dataset, split, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (np.concatenate(RandomOrder().fit(each).score(cases)) for each in data)
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("name", "popularity", "similarity"),
    [("amazon-2014-beauty", (0.122, 0.211), (0.274, 0.360)), ("amazon-2014-toys", (0.109, 0.179), (0.267, 0.341))],
)
def test_figures_on_published_data(
    datasets_folder: Path, name: str, popularity: tuple[float, float], similarity: tuple[float, float]
) -> None:
    folder = datasets_folder / name
    source = read_table(folder / "interactions.parquet", folder / "items.parquet")
    dataset = Dataset.from_raw_log(source, keep_untitled=True)
    rows = evaluate(dataset, {}, split=leave_one_out(dataset, new_items=0)).settings["warm"].rows
    for row, expected in (("popularity", popularity), ("tf-idf", similarity)):
        found = [rows[row].metrics[f"ndcg@{k}"].mean for k in (1, 3)]
        # Another draw of the negatives moves a mean by about 0.002.
        assert found == pytest.approx(expected, abs=0.006)


def test_item_knn_equals_a_loop(dataset: Dataset, split: Split) -> None:
    owners: dict[str, set[str]] = {}
    for user, history in split.train.select("user_id", "history").iter_rows():
        for item in history:
            owners.setdefault(item, set()).add(user)

    def cosine(a: str, b: str) -> float:
        first, second = owners.get(a, set()), owners.get(b, set())
        return len(first & second) / np.sqrt(len(first) * len(second)) if first and second else 0.0

    cases = split.test["warm"]
    found = ItemKNN(SimilarityConfig(max_history=2)).fit(TrainingData(dataset, split)).score(cases)
    for scores, history, candidates in zip(found, cases["history"], cases["candidates"], strict=True):
        latest = history.to_list()[-2:]
        expected = [sum(cosine(item, past) for past in latest) for item in candidates]
        np.testing.assert_allclose(scores, expected, atol=1e-12)


def test_scores_of_the_whole_catalogue_are_those_of_few_candidates(dataset: Dataset, split: Split) -> None:
    cases, items = split.test["warm"], list(dataset.titles)
    whole = cases.with_columns(pl.Series("candidates", [items] * len(cases)))
    few = cases.with_columns(pl.Series("candidates", [items[::9]] * len(cases)))
    for recommender in (ItemKNN, TfIdf):
        fitted = recommender().fit(TrainingData(dataset, split))
        for of_all, of_few in zip(fitted.score(whole), fitted.score(few), strict=True):
            np.testing.assert_allclose(of_all[::9], of_few, rtol=1e-12, atol=1e-15)
            assert ((of_all == 0) == (np.abs(of_all) < 1e-9)).all()


@pytest.mark.parametrize("baseline", [Popularity, ItemKNN, TfIdf])
def test_restored_baselines_score_alike(
    dataset: Dataset, split: Split, baseline: type[Popularity | ItemKNN | TfIdf]
) -> None:
    data = TrainingData(dataset, split)
    fitted = baseline().fit(data)
    expected = fitted.score(split.test["new-item"])
    restored = baseline().restore(data, fitted.tensors())
    for found, scores in zip(restored.score(split.test["new-item"]), expected, strict=True):
        np.testing.assert_array_equal(found, scores)


def test_random_order_cannot_be_saved(dataset: Dataset, split: Split) -> None:
    """Its scores depend on how many were drawn before, so that no copy could score alike."""
    fitted = RandomOrder().fit(TrainingData(dataset, split))
    with pytest.raises(LorarecError, match="RandomOrder cannot be saved"):
        fitted.tensors()
