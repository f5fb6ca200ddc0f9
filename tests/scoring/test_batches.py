"""Batches within a token budget, and modes of models that are restored."""

from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorarec.scoring import evaluation_mode, map_batches, token_batches, training_mode


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 120))
def test_batches_hold_every_sequence_once_longest_first_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = token_batches(lengths, budget)
    order = [index for batch in batches for index in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[index] for index in order] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch[0]] <= budget


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 120))
def test_results_are_in_the_order_given(lengths: list[int], budget: int) -> None:
    assert map_batches(lambda batch: [(index, lengths[index]) for index in batch], lengths, budget) == list(
        enumerate(lengths)
    )


def test_a_result_is_needed_for_every_sequence() -> None:
    with pytest.raises(ValueError, match="shorter"):
        map_batches(lambda batch: batch[1:], [1, 2, 3])


@pytest.mark.parametrize("training", [True, False])
def test_modes_are_restored_even_after_errors(training: bool) -> None:
    first, second = torch.nn.Dropout().train(training), torch.nn.Dropout().train(not training)
    with evaluation_mode(first, second):
        assert (first.training, second.training) == (False, False)
        with suppress(ZeroDivisionError), training_mode(first):
            assert (first.training, second.training) == (True, False)
            raise ZeroDivisionError
        assert (first.training, second.training) == (False, False)
    assert (first.training, second.training) == (training, not training)
