"""Coverage, Gini index and self-information against loops written from their formulas."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorarec.errors import LorarecError
from lorarec.metrics import coverage, gini_index, self_information

exposures = st.lists(st.integers(0, 5), min_size=1, max_size=12).filter(any)


@given(exposures)
def test_gini_index_is_half_the_relative_mean_difference(exposure: list[int]) -> None:
    differences = sum(abs(a - b) for a in exposure for b in exposure)
    wanted = differences / (2 * len(exposure) ** 2 * (sum(exposure) / len(exposure)))
    assert gini_index(np.array(exposure)) == pytest.approx(wanted)


@given(exposures)
def test_coverage_is_the_share_of_items_shown(exposure: list[int]) -> None:
    assert coverage(np.array(exposure)) == sum(count > 0 for count in exposure) / len(exposure)


def test_ends_of_the_gini_index() -> None:
    assert gini_index(np.full(10, 7)) == 0
    assert gini_index(np.eye(10, dtype=int)[3]) == 0.9


@given(st.lists(st.integers(0, 20), min_size=1))
def test_self_information_counts_unknown_items_as_chosen_once(choosers: list[int]) -> None:
    wanted = [-math.log2(max(count, 1) / 20) for count in choosers]
    assert self_information(np.array(choosers), 20).tolist() == pytest.approx(wanted)


def test_bad_input_is_named() -> None:
    for function in (coverage, gini_index):
        with pytest.raises(LorarecError, match="no items"):
            function(np.array([]))
    with pytest.raises(LorarecError, match="no item is shown"):
        gini_index(np.zeros(3))
    with pytest.raises(LorarecError, match="at least one user, got 0"):
        self_information(np.zeros(3), 0)
