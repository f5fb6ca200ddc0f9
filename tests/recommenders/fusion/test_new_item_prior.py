"""The estimate of the prior of new items: planted shares are found, and it is the maximum of the likelihood."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorarec.recommenders import estimate_new_item_prior, lowest_new_item_prior
from lorarec.recommenders.fusion.new_item_prior import MARGIN, clip_prior, log_odds_shift


def _posterior(observed: np.ndarray, prior: float) -> np.ndarray:
    """Return the posterior of the class with mean 1 against that with mean -1, both of variance 1."""
    return 1 / (1 + np.exp(-(2 * observed + np.log(prior / (1 - prior)))))


@pytest.mark.parametrize("share", [0.0, 0.03, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("fitted", [0.1, 0.5])
def test_a_planted_share_is_found(share: float, fitted: float) -> None:
    rng = np.random.default_rng(0)
    new = rng.random(20_000) < share
    observed = rng.normal(np.where(new, 1, -1))
    assert estimate_new_item_prior(_posterior(observed, fitted), fitted) == pytest.approx(share, abs=0.02)


def test_it_is_the_most_likely_prior() -> None:
    rng = np.random.default_rng(1)
    fitted, mass = 0.2, rng.beta(0.5, 1.0, 300)
    ratio = np.stack([mass / fitted, (1 - mass) / (1 - fitted)])
    grid = np.linspace(0.001, 0.999, 999)
    likelihood = [np.log(prior * ratio[0] + (1 - prior) * ratio[1]).sum() for prior in grid]
    assert estimate_new_item_prior(mass, fitted) == pytest.approx(grid[np.argmax(likelihood)], abs=0.002)


def _em(new_mass: np.ndarray, fitted: float, steps: int) -> float:
    """Return the prior after steps of the EM algorithm of Saerens et al. (2002, eqs. 2.9 and 2.10)."""
    prior = fitted
    for _ in range(steps):
        new, known = new_mass * prior / fitted, (1 - new_mass) * (1 - prior) / (1 - fitted)
        prior = float((new / (new + known)).mean())
    return prior


@pytest.mark.parametrize(("fitted", "shape"), [(0.2, (0.5, 1.0)), (0.33, (0.2, 0.4)), (0.05, (1.0, 20.0))])
def test_the_em_algorithm_converges_to_it(fitted: float, shape: tuple[float, float]) -> None:
    mass = np.random.default_rng(2).beta(*shape, 300)
    assert estimate_new_item_prior(mass, fitted) == pytest.approx(clip_prior(_em(mass, fitted, 20_000)), abs=1e-6)


@pytest.mark.parametrize(("mass", "expected"), [(0.3299, MARGIN), (0.3301, 1 - MARGIN)])
def test_cases_that_say_little(mass: float, expected: float) -> None:
    # The likelihood rises to one end, but so slowly that EM is far from it after thousands of steps.
    assert 0.001 < _em(np.full(200, mass), 0.33, 10_000) < 0.999
    assert estimate_new_item_prior(np.full(200, mass), 0.33) == expected


def test_the_lower_limit_is_where_the_likelihood_has_dropped() -> None:
    rng = np.random.default_rng(1)
    fitted, mass = 0.2, rng.beta(0.5, 1.0, 300)
    ratio = np.stack([mass / fitted, (1 - mass) / (1 - fitted)])
    grid = np.linspace(0.0005, 0.9995, 2000)
    likelihood = np.array([np.log(prior * ratio[0] + (1 - prior) * ratio[1]).sum() for prior in grid])
    inside = grid[likelihood >= likelihood.max() - 1.92]
    assert lowest_new_item_prior(mass, fitted) == pytest.approx(inside.min(), abs=0.001)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_more_cases_bring_the_lower_limit_closer_to_a_planted_share(share: float) -> None:
    rng = np.random.default_rng(0)
    observed = rng.normal(np.where(rng.random(20_000) < share, 1, -1))
    limits = [lowest_new_item_prior(_posterior(observed[:cases], 0.5), 0.5) for cases in (100, 1000, 20_000)]
    assert limits == sorted(limits)
    assert limits[-1] == pytest.approx(share, abs=0.03)
    assert max(limits) <= share + 0.005


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_the_shift_changes_the_prior_of_a_posterior(mass: float, fitted: float, prior: float) -> None:
    shifted = np.log(mass / (1 - mass)) + log_odds_shift(prior, fitted)
    new, known = mass / fitted * prior, (1 - mass) / (1 - fitted) * (1 - prior)
    assert 1 / (1 + np.exp(-shifted)) == pytest.approx(new / (new + known), abs=1e-9)


def test_no_new_candidates_give_the_smallest_prior() -> None:
    assert estimate_new_item_prior(np.zeros(5), 0.3) == MARGIN
    assert estimate_new_item_prior(np.ones(5), 0.3) == 1 - MARGIN
    assert lowest_new_item_prior(np.zeros(5), 0.3) == MARGIN
    assert clip_prior(0) == MARGIN
    assert clip_prior(0.4) == 0.4
