"""Instances of the model: they share its weights, score alike, and may be used at once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, AdapterBank, merge
from lorarec.prompts import Example, PromptBuilder, PromptConfig
from lorarec.scoring import score
from lorarec.serving.engine import LoadedAdapter, Mixture, MultiAdapterEngine, ScoringRequest
from lorarec.serving.metrics import Metrics
from lorarec.serving.prompt_cache import PromptCache
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
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def cache(metrics: Metrics) -> PromptCache:
    return PromptCache(2**24, metrics)


@pytest.fixture
def engine(tiny_backbone: Backbone, cache: PromptCache) -> Iterator[MultiAdapterEngine]:
    """Two instances with cached prompts, and no adapters yet."""
    engine = MultiAdapterEngine(tiny_backbone, "factors", instances=2, prompt_cache=cache)
    yield engine
    engine.close()


def _counts(metrics: Metrics) -> tuple[float, float]:
    """Numbers of hits and misses."""
    names = ("lorarec_prompt_cache_hits_total", "lorarec_prompt_cache_misses_total")
    hits, misses = (metrics.registry.get_sample_value(name) for name in names)
    assert hits is not None
    assert misses is not None
    return hits, misses


def _assert_close(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    for ours, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-5)


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


def test_cached_prompts_score_like_merged_weights(
    engine: MultiAdapterEngine,
    loaded: Sequence[LoadedAdapter],
    requests: Sequence[ScoringRequest],
    expected: Sequence[np.ndarray],
    cache: PromptCache,
    metrics: Metrics,
) -> None:
    """A batch of new and cached prompts under several mixtures, and other candidates for the same history."""
    engine.install(loaded)
    _assert_close(engine.score(requests[:5]), expected[:5])
    assert _counts(metrics) == (0, 5)
    _assert_close(engine.score(requests), expected)
    assert _counts(metrics) == (5, 12)
    _assert_close(engine.score(requests[::-1]), expected[::-1])
    fewer = [replace(each, example=Example(each.example.prompt, each.example.branches[2:0:-1])) for each in requests]
    _assert_close(engine.score(fewer), [each[2:0:-1] for each in expected])
    assert _counts(metrics) == (29, 12)
    engine.close()
    assert cache.bytes == 0


def test_instances_in_threads_share_the_cached_prompts(
    engine: MultiAdapterEngine,
    loaded: Sequence[LoadedAdapter],
    requests: Sequence[ScoringRequest],
    expected: Sequence[np.ndarray],
    metrics: Metrics,
) -> None:
    engine.install(loaded)
    with ThreadPoolExecutor(2) as threads:
        for _ in range(10):
            for scores in threads.map(lambda instance: engine.score(requests, instance), range(2)):
                _assert_close(scores, expected)
    hits, misses = _counts(metrics)
    assert misses <= 2 * len(requests) < hits


def test_a_replaced_adapter_never_gets_the_prompts_of_the_former_one(
    engine: MultiAdapterEngine,
    tiny_backbone: Backbone,
    loaded: Sequence[LoadedAdapter],
    requests: Sequence[ScoringRequest],
    cache: PromptCache,
) -> None:
    """The new version has the same name, and both are installed at once for a while."""
    former = [replace(requests[0], mixture=Mixture({loaded[0]: 1.0}))]
    new = LoadedAdapter(loaded[0].name, (random_adapter(tiny_backbone, 7),), PromptConfig(), "new")
    latter = [replace(requests[0], mixture=Mixture({new: 1.0}))]
    without = MultiAdapterEngine(tiny_backbone, "factors", instances=1)
    without.install([loaded[0], new])
    (old_scores,), (new_scores,) = without.score(former), without.score(latter)
    without.close()
    assert np.abs(old_scores - new_scores).max() > 1e-2
    engine.install([loaded[0]])
    for _ in range(2):
        np.testing.assert_allclose(engine.score(former)[0], old_scores, atol=1e-5)
    engine.install([loaded[0], new])
    assert cache.bytes == 0
    for _ in range(2):
        np.testing.assert_allclose(engine.score(latter)[0], new_scores, atol=1e-5)
        np.testing.assert_allclose(engine.score(former)[0], old_scores, atol=1e-5)
    engine.install([new])
    np.testing.assert_allclose(engine.score(latter)[0], new_scores, atol=1e-5)


def test_users_with_other_weights_of_a_personal_adapter_share_no_prompt(
    loaded: Sequence[LoadedAdapter],
) -> None:
    def mixture(first: float, weights: torch.Tensor) -> Mixture:
        return Mixture({loaded[0]: first, loaded[1]: 1.0}, {loaded[1]: weights})

    weights = torch.tensor([[0.25, 0.75]])
    assert mixture(1.0, weights).key == mixture(1.0, weights.clone()).key
    others = [mixture(0.5, weights), mixture(1.0, weights + 1e-6), Mixture({loaded[0]: 1.0, loaded[1]: 1.0}), Mixture()]
    assert len({each.key for each in (mixture(1.0, weights), *others)}) == 5


def test_prompts_that_do_not_come_again_are_not_kept(
    engine: MultiAdapterEngine,
    tiny_backbone: Backbone,
    requests: Sequence[ScoringRequest],
    cache: PromptCache,
    metrics: Metrics,
) -> None:
    """Those of explanations and of the readout `likelihood`, and of requests that are scored in chunks."""
    backbone_alone = replace(requests[0], mixture=Mixture())
    engine.score([replace(backbone_alone, cached=False)])
    engine.score([replace(backbone_alone, builder=PromptBuilder(tiny_backbone.tokenizer, "likelihood"))])
    long = Example([5] * 100, [[6, 7, 8, 9]] * 600)
    [scores] = engine.score([replace(backbone_alone, example=long)])
    assert scores.shape == (600,)
    assert (cache.bytes, _counts(metrics)) == (0, (0, 0))
    engine.score([backbone_alone])
    assert cache.bytes > 0
