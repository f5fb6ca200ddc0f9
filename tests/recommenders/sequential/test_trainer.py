"""Next-item models learn which item follows which, and read any history."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorarec.errors import LorarecError
from lorarec.recommenders import (
    SEQUENCE_ENCODERS,
    NextItemConfig,
    NextItemModel,
    fit_next_item,
    new_next_item,
    next_item_positions,
    sampled_softmax,
)
from lorarec.recommenders.sequential import trainer

SMALL = NextItemConfig(
    epochs=20, hidden_size=16, num_layers=1, max_history=8, batch_size=16, learning_rate=1e-2, dropout=0
)
NAMES = sorted(SEQUENCE_ENCODERS)


def _circles() -> list[np.ndarray]:
    """Histories in which item i is always followed by item i + 1, of twelve."""
    return [(start + np.arange(3 + start % 15)) % 12 for start in range(60)]


def _right(model: NextItemModel) -> int:
    """Return after how many of the twelve items the model predicts the one that follows."""
    queries = model.queries([np.array([i - 1, i]) % 12 for i in range(12)])
    named = (queries @ model.items.all().T).argmax(1)
    return int((named == (torch.arange(12) + 1) % 12).sum())


@pytest.mark.parametrize("negatives", [512, 6])
@pytest.mark.parametrize("name", NAMES)
def test_learns_the_next_item(name: str, negatives: int) -> None:
    model = fit_next_item(_circles(), 12, replace(SMALL, encoder=name, negatives=negatives))
    assert _right(model) >= 10


@pytest.mark.parametrize("in_batch_share", [0.0, 0.5, 1.0])
def test_mixed_negatives_are_next_items_of_the_batch_and_uniform_ones(
    in_batch_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def keep(model: NextItemModel, states: torch.Tensor, targets: torch.Tensor, negatives: torch.Tensor) -> None:
        seen.append(negatives)

    monkeypatch.setattr(trainer, "sampled_softmax_loss", keep)
    loss = sampled_softmax(100_000, 40, in_batch_share)
    model = new_next_item(100_000, SMALL)
    loss(model, model.pad([np.array([1, 2, 3]), np.array([4, 5])]), np.random.default_rng(0))
    in_batch = np.isin(seen[0].numpy(), [2, 3, 5])
    assert len(in_batch) == 40
    assert in_batch.sum() == 40 * in_batch_share


def test_few_places_of_a_history_an_epoch_teach_as_well() -> None:
    options = replace(SMALL, encoder="fmlp", epochs=60, prefixes=2)
    assert _right(fit_next_item(_circles(), 12, options)) >= 10


@given(st.integers(0, 30), st.one_of(st.none(), st.integers(1, 40)), st.integers(0, 9))
def test_places_that_follow_others_are_drawn_once_each(length: int, prefixes: int | None, seed: int) -> None:
    places = next_item_positions(length, prefixes, np.random.default_rng(seed)).tolist()
    assert set(places) <= set(range(1, length))
    assert len(set(places)) == len(places) == min(max(length - 1, 0), length if prefixes is None else prefixes)


def test_the_seed_decides() -> None:
    one, two = (fit_next_item(_circles(), 12, replace(SMALL, epochs=1)) for _ in range(2))
    assert torch.equal(one.items.all(), two.items.all())


@pytest.mark.parametrize("name", NAMES)
def test_many_histories_are_read_as_one_at_a_time(name: str) -> None:
    model = new_next_item(12, replace(SMALL, encoder=name)).eval()
    histories = [np.array(history) for history in ([3], [3, 1, 4, 1, 5], [9, 2], list(range(12)))]
    together = model.queries(histories)
    separate = torch.cat([model.queries([history]) for history in histories])
    assert torch.allclose(together, separate, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if SEQUENCE_ENCODERS[name].causal])
def test_a_position_attends_to_none_after_it(name: str) -> None:
    model = new_next_item(12, replace(SMALL, encoder=name)).eval()
    whole = torch.tensor([[3, 1, 4, 1, 5]])
    assert torch.allclose(model(whole)[:, :3], model(whole[:, :3]), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_only_the_latest_places_are_read(name: str) -> None:
    model = new_next_item(12, replace(SMALL, encoder=name, max_history=4)).eval()
    history = np.array([9, 8, 7, 6, 5, 4])
    assert torch.equal(model.queries([history]), model.queries([history[-4:]]))


def test_histories_of_one_item_teach_nothing() -> None:
    model = fit_next_item([np.array([0]), np.array([1])], 2, SMALL)
    assert model.queries([np.array([1])]).isfinite().all()


def test_the_best_epoch_is_restored_and_training_stops_without_improvement() -> None:
    seen: list[torch.Tensor] = []

    def valid(model: NextItemModel) -> float:
        seen.append(model.items.all().detach().clone())
        return [0.1, 0.5, 0.4, 0.3, 0.6][len(seen) - 1]

    model = fit_next_item(_circles(), 12, replace(SMALL, patience=2), valid=valid)
    assert len(seen) == 4
    assert torch.equal(model.items.all(), seen[1])


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(LorarecError, match="option hidden_size must be at least 1, got 0"):
        NextItemConfig(hidden_size=0)
    with pytest.raises(LorarecError, match="option epochs must not be negative, got -1"):
        NextItemConfig(epochs=-1)
    with pytest.raises(LorarecError, match="option in_batch_share must be between 0 and 1, got 2"):
        NextItemConfig(in_batch_share=2)
    with pytest.raises(
        LorarecError, match="option encoder must be sasrec or esasrec or gru4rec or fmlp, got 'transformer'"
    ):
        NextItemConfig(encoder="transformer")
