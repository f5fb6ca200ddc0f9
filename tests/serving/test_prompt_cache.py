"""The cache of prompts holds its limit, and keeps what was used last."""

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import torch
from hypothesis import given
from hypothesis import strategies as st

from lorarec.scoring import CachedPrompt
from lorarec.serving.metrics import Metrics
from lorarec.serving.prompt_cache import MAX_SECONDS, PromptCache


def _prompt(tokens: int) -> CachedPrompt:
    """A prompt of 8 bytes for each token and 4 more."""
    return CachedPrompt(((torch.zeros(1, 1, tokens, 1), torch.zeros(1, 1, tokens, 1)),), torch.zeros(1, 1))


def test_the_size_is_that_of_the_tensors() -> None:
    assert _prompt(5).nbytes == 44
    assert CachedPrompt((None, *_prompt(5).layers), torch.zeros(1, 1)).nbytes == 44


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8), st.integers(1, 20)), max_size=60))
def test_the_prompts_that_were_used_last_are_kept_up_to_the_limit(calls: list[tuple[bool, int, int]]) -> None:
    limit, cache = 300, PromptCache(300, Metrics())
    expected: OrderedDict[int, CachedPrompt] = OrderedDict()
    for adds, key, tokens in calls:
        if adds:
            prompt = _prompt(tokens)
            cache.add(key, prompt)
            expected.pop(key, None)
            expected[key] = prompt
            while sum(each.nbytes for each in expected.values()) > limit:
                expected.popitem(last=False)
        else:
            assert cache.get(key) is expected.get(key)
            if key in expected:
                expected.move_to_end(key)
        assert cache.bytes == sum(each.nbytes for each in expected.values()) <= limit


def test_a_prompt_above_the_limit_displaces_no_other() -> None:
    cache = PromptCache(100, Metrics())
    cache.add("short", _prompt(2))
    cache.add("long", _prompt(50))
    assert cache.get("short") is not None
    assert cache.get("long") is None


def test_prompts_that_were_not_used_for_long_are_removed() -> None:
    now, metrics = [0.0], Metrics()
    cache = PromptCache(1000, metrics, lambda: now[0])
    for key in ("a", "b", "c"):
        cache.add(key, _prompt(2))
    now[0] = MAX_SECONDS
    assert cache.get("a") is not None
    now[0] = MAX_SECONDS + 1
    assert cache.get("b") is None
    cache.remove_unused()
    assert cache.bytes == metrics.registry.get_sample_value("lorarec_prompt_cache_bytes") == 20
    now[0] = 3 * MAX_SECONDS
    cache.remove_unused()
    assert cache.bytes == 0


def test_threads_use_the_cache_at_once() -> None:
    cache = PromptCache(2000, Metrics())

    def use(seed: int) -> None:
        for number in range(300):
            key = (seed * number) % 37
            found = cache.get(key)
            assert found is None or found.nbytes == _prompt(key + 1).nbytes
            cache.add(key, _prompt(key + 1))
            assert cache.bytes <= 2000

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, range(1, 9)))
    cache.clear()
    assert cache.bytes == 0
