"""Rules of recommendations: candidates match the filters, the pool is full, and limits leave a full list."""

from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorarec.data import Dataset, ItemFilter, ItemMatcher
from lorarec.errors import LorarecError
from lorarec.retrieval import Boost, Index, ItemRules

BRANDS = ["Lux", "Nord", "Ost", None]


@pytest.fixture(scope="module")
def catalogue(shop: Dataset) -> Dataset:
    """The shop with prices as text and brands, of which Lux has most items."""
    count = shop.items.height
    brands = [BRANDS[(row % 7) % 4 if row % 3 else 0] for row in range(count)]
    prices = [None if row % 11 == 0 else f"{row % 20}.50" for row in range(count)]
    items = shop.items.with_columns(pl.Series("brand", brands), pl.Series("price", prices))
    return Dataset.from_frames("shop", shop.interactions, items)


@pytest.fixture(scope="module")
def light(catalogue: Dataset) -> Index:
    return Index.build(catalogue)


@settings(max_examples=40)
@given(price=st.integers(0, 20), pool=st.integers(1, 50), user=st.integers(0, 39))
def test_the_pool_is_full_of_items_that_match(
    catalogue: Dataset, light: Index, price: int, pool: int, user: int
) -> None:
    history = catalogue.history(f"u{user:02}")
    matching = [
        row["item_id"]
        for row in catalogue.items.iter_rows(named=True)
        if row["price"] is not None and float(row["price"]) <= price and row["brand"] in ("Lux", "Ost")
    ]
    where = [ItemFilter("price", "<=", price), ItemFilter("brand", "in", ["Lux", "Ost"])]
    rules = ItemRules(where).of(ItemMatcher(catalogue))
    proposals = rules.propose(light, history, pool, top_k=5)
    assert len(proposals) == min(pool, len({*matching} - {*history}))
    assert proposals == light.propose(history, pool, light.blocked(matching))
    few = rules.propose(light, history, pool, 5, light.blocked(deny=matching[:3]))
    assert {each.item_id for each in few} <= {*matching[3:]}


@settings(max_examples=60)
@given(
    pool=st.integers(1, 50),
    top_k=st.integers(1, 12),
    limit=st.integers(1, 4),
    seed=st.integers(0, 9),
    boost=st.sampled_from([0.0, 3.0]),
)
def test_limits_hold_and_the_list_is_full(
    catalogue: Dataset, light: Index, pool: int, top_k: int, limit: int, seed: int, boost: float
) -> None:
    brand = dict(zip(catalogue.items["item_id"], catalogue.items["brand"], strict=True))
    boosted = Boost(ItemFilter("brand", "=", "Lux"), boost)
    rules = ItemRules(at_most={"brand": limit}, boost=[boosted]).of(ItemMatcher(catalogue))
    history = catalogue.history("u03")
    drawn = light.propose(history, pool)
    proposals = rules.propose(light, history, pool, top_k)
    assert proposals[: len(drawn)] == drawn
    names = [each.item_id for each in proposals]
    assert len(set(names)) == len(names)
    assert not {*names} & {*history}
    rows = [light.row[name] for name in names]
    scores = np.random.default_rng(seed).normal(size=len(rows))
    best = rules.best(rows, scores, top_k)
    # The best first, leaving out what a limit forbids.
    final = scores + np.array([boost if brand[name] == "Lux" else 0 for name in names])
    expected: list[int] = []
    for place in sorted(range(len(rows)), key=lambda place: -final[place]):
        same = sum(brand[names[other]] == brand[names[place]] for other in expected)
        if (brand[names[place]] is None or same < limit) and len(expected) < top_k:
            expected.append(place)
    assert best == expected
    np.testing.assert_allclose(rules.added(rows), final - scores)
    # As many as the whole catalogue could give.
    left = Counter(brand[item] for item in catalogue.titles if item not in history)
    possible = sum(count if value is None else min(count, limit) for value, count in left.items())
    assert len(best) >= min(top_k, pool, possible)


def test_several_limits_hold_at_once(catalogue: Dataset, light: Index) -> None:
    rules = ItemRules(at_most={"brand": 2, "price": 1}).of(ItemMatcher(catalogue))
    proposals = rules.propose(light, [], 3, top_k=3)
    rows = [light.row[each.item_id] for each in proposals]
    best = [rows[place] for place in rules.best(rows, np.zeros(len(rows)), 3)]
    assert len(best) == 3
    for column, limit in (("brand", 2), ("price", 1)):
        values = [value for value in catalogue.items[column].gather(best) if value is not None]
        assert max(Counter(values).values()) <= limit


def test_without_rules_nothing_changes(catalogue: Dataset, light: Index) -> None:
    rules = ItemRules().of(ItemMatcher(catalogue))
    assert rules.propose(light, ["i00"], 9, 5) == light.propose(["i00"], 9)
    assert rules.best([4, 5, 6], np.array([1.0, 3.0, 3.0]), 2) == [1, 2]
    assert ItemRules().as_dict() == {}


def test_rules_as_values() -> None:
    rules = ItemRules([ItemFilter("brand", "in", ["a", "b"])], {"brand": 2}, [Boost(ItemFilter("price", "<", 3), 1.5)])
    assert rules.as_dict() == {
        "where": [{"column": "brand", "op": "in", "value": ["a", "b"]}],
        "at_most": {"brand": 2},
        "boost": [{"where": {"column": "price", "op": "<", "value": [3]}, "add": 1.5}],
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at_most": {"colour": 1}}, "at most a number of items per colour: the items of shop have no column 'colour'"),
        ({"at_most": {"brand": 0}}, "at most a number of items per brand must be at least 1, got 0"),
        ({"where": [ItemFilter("colour", "=", "red")]}, "filter colour=red: the items of shop have no column 'colour'"),
    ],
)
def test_rules_that_do_not_fit(catalogue: Dataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        ItemRules(**options).of(ItemMatcher(catalogue))
    with pytest.raises(LorarecError, match="a boost must be a finite number, got nan"):
        Boost(ItemFilter("brand", "=", "Lux"), float("nan"))
