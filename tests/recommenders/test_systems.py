"""What every system does: it learns what is in the log, and nothing that is not."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from lorarec.data.columns import CANDIDATES, HISTORY, USER
from lorarec.experiments import SYSTEMS
from lorarec.metrics import ndcg, target_ranks
from lorarec.prompts import true_places
from lorarec.recommenders import TrainingData

#: Options that make a system quick on a small log.
_SEQUENCE = {"epochs": 15, "width": 16, "batch": 16, "lr": 1e-2, "dropout": 0, "longest": 10}
_TRANSFER = {
    "pretrain_epochs": 10,
    "pretrain_lr": 1e-2,
    "width": 16,
    "depth": 1,
    "longest": 10,
    "batch": 32,
    "lr": 1e-2,
    "dropout": 0,
}
QUICK: dict[str, dict[str, Any]] = {
    "bpr-mf": {"epochs": 40, "width": 8, "batch": 64, "lr": 2e-2},
    "sasrec": _SEQUENCE,
    "gru4rec": _SEQUENCE,
    "fmlp-rec": _SEQUENCE,
    "unisrec": {**_TRANSFER, "experts": 2},
    "vq-rec": {**_TRANSFER, "digits": 8, "codes": 16},
    "recformer": {**_TRANSFER, "pretrain_epochs": 5, "epochs": 4},
    "p5": {"epochs": 7, "width": 16, "depth": 1, "batch": 32, "lr": 1e-2, "dropout": 0},
}
CHANCE = float(np.mean(1 / np.log2(np.arange(1, 11) + 1)) / 3)  # NDCG@10 of a random order of 30

#: These need a backbone and have tests of their own.
LANGUAGE_MODEL = {"zero-shot", "general", "specific", "tallrec", "second-round", "mixture-grid", "mixture-entropy"}


def test_every_system_is_tested() -> None:
    assert SYSTEMS.keys() == QUICK.keys() | LANGUAGE_MODEL


def _ndcg(system: str, material: TrainingData, **options: int) -> float:
    cases = material.split.test["warm"]
    scores = SYSTEMS[system](material, **{**QUICK[system], **options})(cases.select(USER, HISTORY, CANDIDATES))
    return float(ndcg(target_ranks(scores, np.array(true_places(cases))), 10).mean())


@pytest.mark.parametrize("system", QUICK)
def test_learns_what_is_in_the_log(system: str, circles: TrainingData) -> None:
    assert _ndcg(system, circles) > 3 * CHANCE


@pytest.mark.parametrize("system", QUICK)
def test_a_log_without_a_pattern_gives_chance(system: str, noise: TrainingData) -> None:
    cases = noise.split.test["warm"].height
    assert abs(_ndcg(system, noise, epochs=5) - CHANCE) < 3 * 0.3 / cases**0.5


@pytest.mark.parametrize("system", QUICK)
def test_the_seed_decides(system: str, circles: TrainingData) -> None:
    cases = circles.split.test["warm"].head(5).select(USER, HISTORY, CANDIDATES)
    one, two = (SYSTEMS[system](circles, **{**QUICK[system], "epochs": 1})(cases) for _ in range(2))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("system", QUICK)
def test_one_case_scores_as_among_many_and_the_unknown_comes_last(system: str, circles: TrainingData) -> None:
    cases = circles.split.test["warm"].head(5).select(USER, HISTORY, CANDIDATES)
    strange = cases.head(1).with_columns(
        pl.lit("nobody").alias(USER), pl.Series(HISTORY, [["i1", "gone"]]), pl.Series(CANDIDATES, [["new", "i2", "i3"]])
    )
    scorer = SYSTEMS[system](circles, **{**QUICK[system], "epochs": 1})
    together = scorer(pl.concat([cases, strange]))
    alone = [scorer(cases[place])[0] for place in range(len(cases))]
    for first, second in zip(together, alone, strict=False):
        np.testing.assert_allclose(first, second, atol=1e-5)
    assert np.isfinite(together[-1]).all()


@pytest.mark.parametrize("system", QUICK)
def test_test_cases_teach_nothing(system: str, circles: TrainingData) -> None:
    cases = circles.split.test["warm"].head(5)
    others = replace(circles.split, test={"warm": circles.split.test["warm"].tail(20)})
    options = {**QUICK[system], "epochs": 1}
    one = SYSTEMS[system](circles, **options)(cases)
    two = SYSTEMS[system](replace(circles, split=others, folder=None), **options)(cases)
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)
