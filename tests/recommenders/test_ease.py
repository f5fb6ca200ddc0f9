"""EASE against the closed form of the paper, in double precision and with a loop over histories."""

import numpy as np
import polars as pl
import pytest

from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.recommenders import EASE, EASEConfig, TrainingData


def _weights(split: Split, penalty: float) -> tuple[list[str], np.ndarray]:
    """Return the known items and their weights B (items, items) by equation 8."""
    items = sorted({item for history in split.train["history"].to_list() for item in history})
    column = {item: place for place, item in enumerate(items)}
    interactions = np.zeros((split.train.height, len(items)))
    for user, history in enumerate(split.train["history"].to_list()):
        interactions[user, [column[item] for item in history]] = 1
    gram = interactions.T @ interactions
    inverse = np.linalg.inv(gram + penalty * np.diag(gram).mean() * np.eye(len(items)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return items, weights


def test_scores_equal_the_closed_form(dataset: Dataset, split: Split) -> None:
    items, weights = _weights(split, 2.0)
    column = {item: place for place, item in enumerate(items)}
    config = EASEConfig(max_history=4, penalty=2.0, neighbours=10_000)
    recommender = EASE(config).fit(TrainingData(dataset, split))
    cases = pl.concat([split.test["warm"], split.test["new-item"]])
    for scores, history, candidates in zip(
        recommender.score(cases), cases["history"], cases["candidates"], strict=True
    ):
        latest = [column[item] for item in history.to_list()[-4:] if item in column]
        expected = [weights[latest, column[item]].sum() if item in column else 0 for item in candidates]
        np.testing.assert_allclose(scores, expected, atol=2e-6)


def test_the_largest_weights_of_each_item_are_kept(dataset: Dataset, split: Split) -> None:
    items, weights = _weights(split, EASEConfig().penalty)
    kept = EASE(EASEConfig(neighbours=3)).fit(TrainingData(dataset, split)).vectors
    place = {item: row for row, item in enumerate(dataset.items["item_id"])}
    rows = [place[item] for item in items]
    found = kept[rows][:, rows].toarray().T
    assert ((found != 0).sum(0) <= 3).all()
    np.testing.assert_allclose(found[found != 0], weights[found != 0], atol=2e-6)
    largest_left_out = np.where(found == 0, np.abs(weights), 0).max(0)
    smallest_kept = np.where(found != 0, np.abs(weights), np.inf).min(0)
    assert (largest_left_out <= smallest_kept + 2e-6).all()


def test_items_beyond_the_most_popular_ones_score_zero(dataset: Dataset, split: Split) -> None:
    counts = split.train["history"].explode().value_counts(sort=True)
    most = counts["count"][4]
    recommender = EASE(EASEConfig(max_items=5)).fit(TrainingData(dataset, split))
    case = (
        split.test["warm"]
        .head(1)
        .with_columns(
            pl.Series("history", [counts["history"].to_list()[:5]]),
            pl.Series("candidates", [counts["history"].to_list()]),
        )
    )
    scores = recommender.score(case)[0]
    assert scores[counts["count"].to_numpy() < most].tolist() == [0] * int((counts["count"] < most).sum())
    assert np.count_nonzero(scores) > 1


def test_stored_tensors_give_the_same_scores(dataset: Dataset, split: Split) -> None:
    data = TrainingData(dataset, split)
    fitted = EASE().fit(data)
    restored = EASE().restore(data, fitted.tensors())
    for before, after in zip(fitted.score(split.valid), restored.score(split.valid), strict=True):
        assert before.tolist() == after.tolist()


def test_options_out_of_range_are_refused() -> None:
    for option in ("penalty", "neighbours", "max_items"):
        with pytest.raises(LorarecError, match=option):
            EASEConfig(**{option: 0})
