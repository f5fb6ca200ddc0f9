"""Instances of the model: they share its weights, score alike, and may be used at once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, AdapterBank, merge
from lorarec.prompts import Example, PromptBuilder, PromptConfig
from lorarec.scoring import score
from lorarec.serving.engine import LoadedAdapter, Mixture, MultiAdapterEngine, ScoringRequest
from tests.factories import random_adapter

WEIGHTS = [(0.0, 1.0), (1.0, 0.0), (0.3, 0.7), (0.9, 0.4)]


@pytest.fixture
def adapters(tiny_backbone: Backbone) -> list[Adapter]:
    return [random_adapter(tiny_backbone, seed) for seed in (0, 1)]


@pytest.fixture
def loaded(adapters: Sequence[Adapter]) -> list[LoadedAdapter]:
    return [LoadedAdapter(str(i), (adapter,), PromptConfig(), str(i)) for i, adapter in enumerate(adapters)]


@pytest.fixture
def requests(tiny_backbone: Backbone, loaded: Sequence[LoadedAdapter]) -> list[ScoringRequest]:
    """Prompts of different lengths, under four mixtures in turns."""
    rng = np.random.default_rng(0)
    builder = PromptBuilder(tiny_backbone.tokenizer, "verdict")
    return [
        ScoringRequest(
            Example(rng.integers(1, 50, 5 + number).tolist(), [rng.integers(1, 50, 3).tolist() for _ in range(4)]),
            builder,
            Mixture(dict(zip(loaded, WEIGHTS[number % 4], strict=True))),
        )
        for number in range(12)
    ]


@pytest.fixture
def expected(
    tiny_backbone: Backbone, adapters: Sequence[Adapter], requests: Sequence[ScoringRequest]
) -> list[np.ndarray]:
    """Scores of the backbone with each mixture merged into its weights."""
    bank, scores = AdapterBank.stack(adapters), []
    for number, request in enumerate(requests):
        weights = dict.fromkeys(bank.layers, torch.tensor(WEIGHTS[number % 4]))
        merged = merge(tiny_backbone.model, bank.to_adapter(weights, "factors"))
        scores.append(score(tiny_backbone.model, [request.example], request.builder)[0])
        merged.unmerge()
    return scores


def test_instances_in_threads_score_like_merged_weights(
    tiny_backbone: Backbone,
    loaded: Sequence[LoadedAdapter],
    requests: Sequence[ScoringRequest],
    expected: Sequence[np.ndarray],
) -> None:
    engine = MultiAdapterEngine(tiny_backbone, "factors", instances=3)
    engine.install(loaded)
    with ThreadPoolExecutor(3) as threads:
        for _ in range(5):
            found = list(threads.map(lambda i: engine.score(requests[i::3], i), range(3)))
            for instance, scores in enumerate(found):
                for ours, wanted in zip(scores, expected[instance::3], strict=True):
                    np.testing.assert_allclose(ours, wanted, atol=1e-5)
    engine.close()


def test_instances_share_the_weights_of_the_model(tiny_backbone: Backbone, loaded: Sequence[LoadedAdapter]) -> None:
    before = {name: weight.data_ptr() for name, weight in tiny_backbone.model.named_parameters()}
    engine = MultiAdapterEngine(tiny_backbone, "factors", instances=2)
    engine.install(loaded)
    engine.close()
    assert engine.instances == 2
    assert engine._models[1] is not tiny_backbone.model
    for model in engine._models:
        assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == before


def test_the_default_is_an_instance_for_each_thread_of_pytorch(tiny_backbone: Backbone) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert MultiAdapterEngine(tiny_backbone, "factors").instances == 3
    finally:
        torch.set_num_threads(threads)


def test_a_failed_installation_leaves_all_instances_as_they_were(
    tiny_backbone: Backbone, loaded: Sequence[LoadedAdapter], requests: Sequence[ScoringRequest]
) -> None:
    other = LoadedAdapter("other", (random_adapter(tiny_backbone, 2, r=3),), PromptConfig(), "other")
    engine = MultiAdapterEngine(tiny_backbone, "factors", instances=2)
    engine.install(loaded)
    before = [engine.score(requests, instance) for instance in range(2)]
    with pytest.raises(LorarecError, match="rank"):
        engine.install([*loaded, other])
    for instance in range(2):
        np.testing.assert_array_equal(engine.score(requests, instance), before[instance])
    engine.close()
