import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorarec.errors import LorarecError
from lorarec.lora.simplex import MAX_POINTS, check_weights, simplex_grid, uniform


@given(st.integers(1, 6), st.integers(1, 7))
def test_grid_is_every_point_of_the_lattice_and_the_uniform_one(size, divisions):
    grid = simplex_grid(size, divisions)
    assert (grid >= 0).all()
    torch.testing.assert_close(grid.sum(1), torch.ones(len(grid), dtype=torch.float64))
    assert len(set(map(tuple, grid.mul(divisions * size).round().long().tolist()))) == len(grid)
    assert len(grid) == math.comb(divisions + size - 1, size - 1) + (divisions % size > 0)
    assert (grid - uniform(size)).abs().amax(1).min() < 1e-9


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 20])
def test_grid_stays_affordable(size):
    assert len(simplex_grid(size)) <= MAX_POINTS + 1


def test_pair_is_divided_in_tenths():
    assert simplex_grid(2)[:, 0].tolist() == pytest.approx([i / 10 for i in range(11)])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5).filter(lambda w: sum(w) > 0.1))
def test_weights_on_the_simplex_pass(weights):
    normal = [weight / sum(weights) for weight in weights]
    assert check_weights(normal, len(weights)).tolist() == normal


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.6], "must sum to 1, but 0.5, 0.6 sum to 1.1"),
        ([1.5, -0.5], "must not be negative, got 1.5, -0.5"),
        ([float("nan"), 1.0], "must be finite"),
        ([float("inf"), 0.0], "must be finite"),
        ([1.0], "need 2 weights, one for each adapter, got 1$"),
        ([0.5, 0.25, 0.25], "need 2 weights, one for each adapter, got 0.5, 0.25, 0.25"),
        ([], "need 2 weights, one for each adapter, got none"),
    ],
)
def test_weights_off_the_simplex(weights, message):
    with pytest.raises(LorarecError, match=message):
        check_weights(weights, 2)
