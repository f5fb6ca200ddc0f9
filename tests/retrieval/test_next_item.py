"""The next-item model learns what follows what, and reads any history."""

import numpy as np
import pytest
import torch

from lorarec.errors import LorarecError
from lorarec.retrieval import NextItemOptions
from lorarec.retrieval.next_item import NextItem, fit_next_item

SMALL = NextItemOptions(epochs=30, width=16, depth=1, longest=8, batch=16, lr=1e-2, dropout=0)


def _circles() -> list[np.ndarray]:
    """Histories in which item i is always followed by item i + 1, of twelve."""
    return [(start + np.arange(3 + start % 15)) % 12 for start in range(60)]


@pytest.mark.parametrize("negatives", [512, 6])
def test_learns_what_follows(negatives: int) -> None:
    model = fit_next_item(_circles(), 12, NextItemOptions(**{**vars(SMALL), "negatives": negatives}))
    vectors = model.items.weight.detach().numpy()
    named = [int((vectors @ model.query(np.array([i - 1, i]) % 12)).argmax()) for i in range(12)]
    assert sum(name == (i + 1) % 12 for i, name in enumerate(named)) >= 10


def test_the_seed_decides() -> None:
    one, two = (fit_next_item(_circles(), 12, NextItemOptions(**{**vars(SMALL), "epochs": 1})) for _ in range(2))
    assert torch.equal(one.items.weight, two.items.weight)


def test_a_place_sees_nothing_after_it() -> None:
    model = NextItem(12, 16, 2, 8).eval()
    whole = torch.tensor([[3, 1, 4, 1, 5]])
    assert torch.allclose(model(whole)[:, :3], model(whole[:, :3]), atol=1e-5)


def test_only_the_latest_places_are_read() -> None:
    model = NextItem(12, 16, 1, 4).eval()
    history = np.array([9, 8, 7, 6, 5, 4])
    assert np.array_equal(model.query(history), model.query(history[-4:]))


def test_histories_of_one_item_teach_nothing() -> None:
    model = fit_next_item([np.array([0]), np.array([1])], 2, SMALL)
    assert np.isfinite(model.query(np.array([1]))).all()


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(LorarecError, match="option width must be at least 1, got 0"):
        NextItemOptions(width=0)
    with pytest.raises(LorarecError, match="option epochs must not be negative, got -1"):
        NextItemOptions(epochs=-1)
