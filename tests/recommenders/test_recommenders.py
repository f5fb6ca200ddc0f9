"""Behaviour of every recommender: it learns the patterns of the training data, and nothing else."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from lorarec.data.columns import CANDIDATES, HISTORY, USER
from lorarec.errors import LorarecError
from lorarec.experiments import RECOMMENDERS
from lorarec.metrics import ndcg, target_ranks
from lorarec.prompts import true_places
from lorarec.recommenders import BASELINES, Popularity, Recommender, TrainingData

#: Options that make a recommender quick on a small log.
_SEQUENCE = {"epochs": 15, "hidden_size": 16, "batch_size": 16, "learning_rate": 1e-2, "dropout": 0, "max_history": 10}
_TRANSFER = {
    "pretrain_epochs": 10,
    "pretrain_learning_rate": 1e-2,
    "hidden_size": 16,
    "num_layers": 1,
    "max_history": 10,
    "batch_size": 32,
    "learning_rate": 1e-2,
    "dropout": 0,
}
QUICK: dict[str, dict[str, Any]] = {
    "bpr-mf": {"epochs": 40, "hidden_size": 8, "batch_size": 64, "learning_rate": 2e-2},
    "sasrec": _SEQUENCE,
    "esasrec": _SEQUENCE,
    "gru4rec": _SEQUENCE,
    "fmlp-rec": _SEQUENCE,
    "unisrec": {**_TRANSFER, "num_experts": 2},
    "vq-rec": {**_TRANSFER, "num_digits": 8, "num_codes": 16},
    "recformer": {**_TRANSFER, "pretrain_epochs": 5, "epochs": 4},
    "p5": {"epochs": 7, "hidden_size": 16, "num_layers": 1, "batch_size": 32, "learning_rate": 1e-2, "dropout": 0},
}
CHANCE = float(np.mean(1 / np.log2(np.arange(1, 11) + 1)) / 3)  # NDCG@10 of a random order of 30

#: Systems that need a backbone and have tests of their own.
LANGUAGE_MODEL = {
    *("zero-shot", "general", "specific", "hybrid", "tallrec", "second-round"),
    *("mixture-equal", "mixture-grid", "mixture-entropy", "mixture-agreement"),
}
#: Systems that read titles alone and have tests of their own.
TEXT = {"text-similarity"}
#: Systems that are fitted without iterations and have tests of their own.
CLOSED_FORM = {"ease", "sequential-rules", "recency"}


def test_every_recommender_is_tested() -> None:
    assert RECOMMENDERS.keys() == QUICK.keys() | LANGUAGE_MODEL | TEXT | CLOSED_FORM | BASELINES.keys() | {
        "fusion",
        "index",
    }


def _fit(name: str, data: TrainingData, **options: int) -> Recommender:
    return RECOMMENDERS[name].from_options({**QUICK[name], **options}).fit(data)


def _ndcg(name: str, data: TrainingData, **options: int) -> float:
    cases = data.split.test["warm"]
    scores = _fit(name, data, **options).score(cases.select(USER, HISTORY, CANDIDATES))
    return float(ndcg(target_ranks(scores, np.array(true_places(cases))), 10).mean())


@pytest.mark.parametrize("name", QUICK)
def test_learns_the_pattern_of_the_log(name: str, circles: TrainingData) -> None:
    assert _ndcg(name, circles) > 3 * CHANCE


@pytest.mark.parametrize("name", QUICK)
def test_a_log_without_a_pattern_gives_chance(name: str, noise: TrainingData) -> None:
    cases = noise.split.test["warm"].height
    assert abs(_ndcg(name, noise, epochs=5) - CHANCE) < 3 * 0.3 / cases**0.5


@pytest.fixture(scope="module", params=QUICK)
def fitted(request: pytest.FixtureRequest, circles: TrainingData) -> tuple[str, Recommender]:
    """A name of a recommender, and the recommender after one epoch."""
    return request.param, _fit(request.param, circles, epochs=1)


def test_the_seed_decides(fitted: tuple[str, Recommender], circles: TrainingData) -> None:
    name, recommender = fitted
    cases = circles.split.test["warm"].head(5).select(USER, HISTORY, CANDIDATES)
    again = _fit(name, circles, epochs=1)
    for first, second in zip(recommender.score(cases), again.score(cases), strict=True):
        np.testing.assert_array_equal(first, second)


def test_one_case_scores_as_among_many_and_the_unknown_comes_last(
    fitted: tuple[str, Recommender], circles: TrainingData
) -> None:
    cases = circles.split.test["warm"].head(5).select(USER, HISTORY, CANDIDATES)
    strange = cases.head(1).with_columns(
        pl.lit("nobody").alias(USER), pl.Series(HISTORY, [["i1", "gone"]]), pl.Series(CANDIDATES, [["new", "i2", "i3"]])
    )
    _, recommender = fitted
    together = recommender.score(pl.concat([cases, strange]))
    separate = [recommender.score(cases[place])[0] for place in range(len(cases))]
    for first, second in zip(together, separate, strict=False):
        np.testing.assert_allclose(first, second, atol=1e-5)
    assert np.isfinite(together[-1]).all()


@pytest.mark.parametrize("name", ["bpr-mf", "sasrec", "p5"])
def test_a_training_that_diverges_is_refused(name: str, circles: TrainingData) -> None:
    """Also without validation cases, whose scores would not be numbers."""
    split = replace(circles.split, valid=circles.split.valid.clear())
    with pytest.raises(
        LorarecError, match="the training diverged, its weights are not finite: lower the learning rate"
    ):
        _fit(name, replace(circles, split=split, cache_dir=None), learning_rate=1e30)


@pytest.mark.parametrize("has_validation_cases", [True, False])
@pytest.mark.parametrize("name", sorted(QUICK.keys() - {"vq-rec", "p5"}))  # their norms keep the scores finite
def test_a_training_that_diverges_in_its_only_step_is_refused(
    name: str, has_validation_cases: bool, circles: TrainingData
) -> None:
    """The weights are large and finite then, so that scores are the first that are not numbers."""
    valid = circles.split.valid if has_validation_cases else circles.split.valid.clear()
    data = replace(circles, split=replace(circles.split, valid=valid), cache_dir=None)
    once = {"epochs": 1, "batch_size": 100_000, "learning_rate": 1e30}
    if "pretrain_epochs" in QUICK[name]:
        once["pretrain_epochs"] = 1
    with pytest.raises(LorarecError, match="the training diverged, its scores are not finite: lower the learning rate"):
        _fit(name, data, **once)


@pytest.mark.parametrize("name", ["bpr-mf", "sasrec", "recformer", "p5"])
def test_without_validation_cases_the_last_epoch_counts(
    name: str, circles: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = circles.split.test["warm"].head(5)
    info = {**circles.split.info, "fingerprint": "without validation cases"}
    without = replace(circles, split=replace(circles.split, valid=circles.split.valid.clear(), info=info))
    found = _fit(name, without, epochs=3, patience=1).score(cases)
    rising = itertools.count(1)
    monkeypatch.setattr(TrainingData, "validation_ndcg", lambda *_: float(next(rising)))
    info = {**circles.split.info, "fingerprint": "better with each epoch"}
    expected = _fit(name, replace(circles, split=replace(circles.split, info=info)), epochs=3, patience=1).score(cases)
    assert next(rising) > 3
    for scores, last in zip(found, expected, strict=True):
        np.testing.assert_array_equal(scores, last)


def test_a_validation_metric_without_cases_is_refused(circles: TrainingData) -> None:
    data = replace(circles, split=replace(circles.split, valid=circles.split.valid.clear()))
    with pytest.raises(LorarecError, match="the split has no validation cases"):
        data.validation_ndcg(Popularity().fit(data))


def test_test_cases_teach_nothing(fitted: tuple[str, Recommender], circles: TrainingData) -> None:
    name, recommender = fitted
    cases = circles.split.test["warm"].head(5)
    others = replace(circles.split, test={"warm": circles.split.test["warm"].tail(20)})
    one = recommender.score(cases)
    two = _fit(name, replace(circles, split=others, cache_dir=None), epochs=1).score(cases)
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)
