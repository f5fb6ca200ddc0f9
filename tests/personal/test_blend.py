"""The weighted mean of the log-odds of two models, and the weights that validation events choose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorarec.metrics.classification import log_loss
from lorarec.personal.blend import blended, choose_blend

PROBABILITIES = st.lists(st.floats(0, 1), min_size=8, max_size=8).map(np.array)
LABELS = np.array([0, 1] * 4)


@given(PROBABILITIES, PROBABILITIES)
def test_corners_are_one_model_each_and_no_weight_is_better_than_the_chosen(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_allclose(blended(one, other, (1, 0)), one, atol=1e-6)
    np.testing.assert_allclose(blended(one, other, (0, 1)), other, atol=1e-6)
    found = choose_blend(one, other, LABELS)
    chosen = log_loss(blended(one, other, found.weights), LABELS).mean()
    assert chosen <= min(log_loss(one, LABELS).mean(), log_loss(other, LABELS).mean()) + 1e-9
    assert chosen == pytest.approx(min(tried["loss"] for tried in found.losses))
    assert [round(20 * tried["weight"]) for tried in found.losses] in ([*range(21)], [*range(20, -1, -1)])


def test_the_better_model_gets_all_weight() -> None:
    knows, guesses = np.where(LABELS == 1, 0.9, 0.1), np.full(8, 0.5)
    assert choose_blend(knows, guesses, LABELS).weights == (1, 0)
    assert choose_blend(guesses, knows, LABELS).weights == (0, 1)
