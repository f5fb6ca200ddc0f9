"""The cache of encoded texts: the results of the function, within the limit of the memory."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from lorarec.prompts.token_cache import TokenCache


@given(st.lists(st.tuples(st.sampled_from(["a", "bb", "ccc" * 100, "é" * 50]), st.integers(0, 3)), max_size=50))
def test_results_are_those_of_the_function(calls: list[tuple[str, int]]) -> None:
    def encode(text: str, extra: int) -> tuple[int, ...]:
        return (*text.encode(), extra)

    cache = TokenCache(encode, 2_000)
    for call in calls:
        assert cache(*call) == encode(*call)
        assert cache.bytes <= 2_000


def test_texts_used_last_are_kept() -> None:
    encoded: list[str] = []

    def encode(text: str) -> tuple[int, ...]:
        encoded.append(text)
        return (1,)

    cache = TokenCache(encode, 3 * 450)  # room for three of the texts
    for text in ("a" * 100, "b" * 100, "c" * 100, "a" * 100, "d" * 100, "a" * 100, "b" * 100):
        cache(text)
    assert [text[0] for text in encoded] == ["a", "b", "c", "d", "b"]


def test_the_memory_is_limited() -> None:
    """The memory that Python takes for made-up texts of four bytes a character, which is the most."""
    limit = 1 << 22
    cache = TokenCache(lambda text: tuple(map(ord, text[:32])), limit)
    tracemalloc.start()
    for number in range(10_000):
        cache(f"{number} " + "\N{GRINNING FACE}" * 490)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert limit / 2 < used < 1.5 * limit
