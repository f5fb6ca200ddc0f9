"""The last stage: weights of planted scorers, parts that add up, and shifts of the prior."""

import json
from itertools import pairwise

import numpy as np
import pytest

from lorarec.recommenders import CandidateScores, FusionModel, log_posterior
from lorarec.recommenders.fusion.new_item_prior import MARGIN, clip_prior


def _planted(cases: int, new_share: float, seed: int = 0) -> tuple[CandidateScores, np.ndarray]:
    """Draw cases of ten candidates, three of them new; `good` says what is right and `noise` nothing."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(cases, 10, 2))
    new = np.zeros((cases, 10), bool)
    new[:, 7:] = True
    targets = np.where(rng.random(cases) < new_share, rng.integers(7, 10, cases), rng.integers(0, 7, cases))
    scores[np.arange(cases), targets, 0] += 3
    lengths = rng.integers(1, 20, cases)
    return CandidateScores(scores.reshape(-1, 2), new.ravel(), np.full(cases, 10), lengths), targets


def test_the_good_scorer_gets_the_weight() -> None:
    cases, targets = _planted(600, 0.3)
    model = FusionModel.fit(["good", "noise"], cases, targets)
    weights = dict(zip(model.features.names, model.weights, strict=True))
    assert weights["good"] > 1
    assert weights["good, new item"] > 1
    assert abs(weights["noise"]) < 0.3
    assert model.fitted_prior == pytest.approx(0.3, abs=0.05)
    mass = np.exp(model.log_posterior(cases, model.fitted_prior)).reshape(600, 10)[:, 7:].sum(1)
    assert mass.mean() == pytest.approx(model.fitted_prior, abs=1e-3)  # the constant has no penalty


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
def test_the_prior_of_other_cases_is_found_without_labels(share: float) -> None:
    model = FusionModel.fit(["good", "noise"], *_planted(800, 0.3))
    cases, targets = _planted(800, share, seed=1)
    prior = model.estimate_prior(cases)
    assert prior == pytest.approx(share, abs=0.1)
    right = np.arange(800) * 10 + targets
    estimated = model.log_posterior(cases, prior)[right].mean()
    assert estimated >= model.log_posterior(cases, model.fitted_prior)[right].mean() - 1e-3


@pytest.mark.parametrize("prior", [0.01, 0.3, 0.9])
def test_parts_add_up_to_the_score(prior: float) -> None:
    cases, targets = _planted(200, 0.3)
    model = FusionModel.fit(["good", "noise"], cases, targets)
    parts = model.parts(cases, prior)
    assert parts.shape == (2000, 3)
    np.testing.assert_allclose(log_posterior(parts.sum(1), cases.sizes), model.log_posterior(cases, prior), atol=1e-9)
    np.testing.assert_allclose(parts.reshape(200, 10, 3).mean(1), 0, atol=1e-9)


def test_the_order_of_candidates_does_not_matter() -> None:
    cases, targets = _planted(100, 0.3)
    model = FusionModel.fit(["good", "noise"], cases, targets)
    order = np.arange(1000).reshape(100, 10)[:, ::-1].ravel()
    turned = CandidateScores(cases.scores[order], cases.new[order], cases.sizes, cases.history_lengths)
    np.testing.assert_allclose(model.log_posterior(turned, 0.2), model.log_posterior(cases, 0.2)[order])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_prior_can_be_chosen_where_all_or_no_targets_were_new(share: float) -> None:
    """The likelihood has no maximum in the constant then; priors still move the posterior as they do elsewhere."""
    cases, targets = _planted(300, share)
    model = FusionModel.fit(["good", "noise"], cases, targets)
    masses = [
        np.exp(model.log_posterior(cases, prior)).reshape(300, 10)[:, 7:].sum(1).mean()
        for prior in (0.0, 0.1, 0.5, 0.9, 1.0)
    ]
    assert masses[-1 if share else 0] == pytest.approx(clip_prior(share), abs=1e-8)
    assert all(before + 0.01 < after for before, after in pairwise(masses))


def test_without_new_candidates_the_prior_changes_nothing() -> None:
    cases, targets = _planted(100, 0.0)
    known = CandidateScores(cases.scores, np.zeros_like(cases.new), cases.sizes, cases.history_lengths)
    model = FusionModel.fit(["good", "noise"], known, targets)
    assert model.weights[-1] == 0
    assert not model.scores_new_items
    assert FusionModel.fit(["good", "noise"], cases, targets).scores_new_items
    np.testing.assert_array_equal(model.log_posterior(known, 0.9), model.log_posterior(known, 0.1))


def test_a_share_of_new_targets_below_the_margin() -> None:
    """The constant is that of the smallest prior, from which `log_odds_shift` measures."""
    cases, targets = _planted(1, 0.0)
    cases = CandidateScores(
        np.tile(cases.scores, (20_000, 1)), np.tile(cases.new, 20_000), np.full(20_000, 10), np.ones(20_000, int)
    )
    targets = np.append(np.tile(targets, 19_999), 9)
    model = FusionModel.fit(["good", "noise"], cases, targets)
    assert model.fitted_prior == 1 / 20_000
    masses = np.exp(model.log_posterior(cases, 0.5)).reshape(-1, 10)[:, 7:].sum(1)
    at_fit = np.exp(model.log_posterior(cases, model.fitted_prior)).reshape(-1, 10)[:, 7:].sum(1)
    odds = at_fit / (1 - at_fit) * (1 - MARGIN) / MARGIN
    np.testing.assert_allclose(masses, odds / (1 + odds), rtol=1e-6)
    assert at_fit.mean() == pytest.approx(MARGIN, rel=1e-6)


def test_json_round_trip() -> None:
    cases, targets = _planted(100, 0.3)
    model = FusionModel.fit(["good", "noise"], cases, targets)
    again = FusionModel.from_json(json.loads(json.dumps(model.as_json())), ["good", "noise"])
    np.testing.assert_array_equal(again.log_posterior(cases, 0.2), model.log_posterior(cases, 0.2))
