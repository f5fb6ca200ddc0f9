import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorarec.errors import LorarecError
from lorarec.lora import AdapterBank, MixingExamples, inject
from lorarec.lora.calibration import HIGHEST, LOWEST, Calibration, fit_temperature, fit_temperatures
from lorarec.scoring import score_batch
from tests.factories import random_adapter


def log_loss(scores, targets, temperature):
    """Reference: a loop from the formula."""
    losses = []
    for of_case, target in zip(scores, targets, strict=True):
        weights = [np.exp(score / temperature) for score in of_case]
        losses.append(-np.log(weights[target] / sum(weights)))
    return np.mean(losses)


def noisy_cases(seed, noise=2.0, count=200):
    rng = np.random.default_rng(seed)
    scores = [rng.normal(0, noise, rng.integers(2, 9)) for _ in range(count)]
    # The targets are drawn at temperature 3, so that the scores are too certain.
    drawn = [int(rng.choice(len(each), p=np.exp(each / 3) / np.exp(each / 3).sum())) for each in scores]
    return scores, drawn


def test_a_temperature_has_the_lowest_log_loss():
    scores, targets = noisy_cases(0)
    found = fit_temperature(scores, targets)
    tried = np.geomspace(0.5, 10, 200)
    losses = [log_loss(scores, targets, temperature) for temperature in tried]
    assert log_loss(scores, targets, found) <= min(losses) + 1e-9
    assert found == pytest.approx(tried[int(np.argmin(losses))], rel=0.02)


def test_a_temperature_that_made_the_targets_is_found():
    assert fit_temperature(*noisy_cases(1, noise=6.0, count=5000)) == pytest.approx(3, rel=0.1)


@settings(max_examples=20)
@given(scale=st.floats(0.3, 4), shift=st.floats(-50, 50), seed=st.integers(0, 5))
def test_a_temperature_follows_the_scale_of_the_scores_and_not_their_level(scale, shift, seed):
    scores, targets = noisy_cases(seed)
    moved = [scale * each + shift for each in scores]
    assert fit_temperature(moved, targets) == pytest.approx(scale * fit_temperature(scores, targets), rel=1e-3)


def test_temperatures_have_limits():
    scores = [np.array([1.0, 0.0, -1.0])] * 4
    assert fit_temperature(scores, [0] * 4) == pytest.approx(LOWEST, rel=1e-2)
    assert fit_temperature(scores, [2] * 4) == pytest.approx(HIGHEST, rel=1e-2)


def test_temperatures_are_those_of_single_adapters(tiny_backbone, make_adapter, builder, make_prompts):
    prompts = make_prompts(builder)
    targets = [i % len(prompt.branches) for i, prompt in enumerate(prompts)]
    folders = [make_adapter(tiny_backbone, seed) for seed in (1, 2, 3)]
    bank = AdapterBank.load(folders)
    with inject(tiny_backbone.model, bank, "factors") as mixed:
        found = fit_temperatures(mixed, 3, MixingExamples(builder, prompts, targets), 200)
        for alone, temperature in zip(torch.eye(3), found, strict=True):
            mixed.set_weights(alone)
            with torch.no_grad():
                scores = [each.double().numpy() for each in score_batch(mixed.model, prompts, builder)]
            assert temperature.item() == pytest.approx(fit_temperature(scores, targets), rel=1e-3)


def test_labels_are_needed(tiny_backbone, adapters, builder, make_prompts):
    with inject(tiny_backbone.model, AdapterBank.load(adapters), "factors") as mixed:
        with pytest.raises(LorarecError, match="6 validation prompts but 0 targets"):
            fit_temperatures(mixed, 2, MixingExamples(builder, make_prompts(builder)), 8192)
        with pytest.raises(LorarecError, match="no validation cases"):
            fit_temperatures(mixed, 2, MixingExamples(builder, [], []), 8192)


def test_scores_that_are_no_numbers_have_no_temperature(tiny_backbone, builder, make_prompts):
    bank = AdapterBank.stack([random_adapter(tiny_backbone, 1), random_adapter(tiny_backbone, 2, std=1e25)])
    labelled = MixingExamples(builder, make_prompts(builder, 2), [0, 0])
    with (
        inject(tiny_backbone.model, bank, "deltas") as mixed,
        pytest.raises(LorarecError, match="a score is NaN or infinite: load the model in float32"),
    ):
        fit_temperatures(mixed, 2, labelled, None)


def test_scores_are_divided_by_the_weighted_mean_of_the_temperatures(tiny_backbone, adapters):
    scores = [torch.tensor([3.0, 6.0]), torch.tensor([9.0])]
    with inject(tiny_backbone.model, AdapterBank.load(adapters), "factors") as mixed:
        calibration = Calibration(mixed, torch.tensor([1.0, 3.0], dtype=torch.float64))
        mixed.set_weights(torch.tensor([0.0, 1.0]))
        assert [each.tolist() for each in calibration(scores)] == [[1.0, 2.0], [3.0]]
        mixed.set_weights(torch.tensor([[1.0, 0.0], [0.75, 0.25]]))
        assert [each.tolist() for each in calibration(scores)] == [[3.0, 6.0], [6.0]]
        names = list(mixed.layers)
        weights = {name: torch.tensor([1.0, 0.0]) for name in names} | {names[0]: torch.tensor([0.0, 1.0])}
        mixed.set_weights(weights)
        expected = 9 / (1 + 2 / len(names))
        assert calibration(scores)[1].item() == pytest.approx(expected)
