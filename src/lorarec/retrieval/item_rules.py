"""Rules of recommendations: filters of items, a maximum per value of a column, and boosts."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lorarec.data import ItemFilter, ItemMatcher
from lorarec.errors import LorarecError
from lorarec.io import JsonObject

if TYPE_CHECKING:
    from lorarec.retrieval.index import Index, Proposal


@dataclass(frozen=True)
class Boost:
    """A number that is added to the score of the items that match a filter.

    Attributes:
        where: The filter.
        add: The number; a negative one moves items down.

    Raises:
        LorarecError: The number is not finite.

    Examples:
        >>> from lorarec import Boost, ItemFilter
        >>> Boost(ItemFilter("brand", "=", "Lux"), add=0.5).add
        0.5
    """

    where: ItemFilter
    add: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.add):
            raise LorarecError(f"a boost must be a finite number, got {self.add}")


@dataclass(frozen=True)
class ItemRules:
    """Rules of recommendations by columns of the items.

    Attributes:
        where: Filters, all of which every recommended item matches. They are applied before the index draws the pool.
        at_most: Column -> maximum number of recommended items with the same value in it; items without a value are not
            limited. It is applied from the best item on, and the pool holds enough items of other values to fill the
            list. With several columns, the list may be shorter than it could be if few items are left.
        boost: Numbers that are added to the scores of items of the pool to order them. The scores that are returned
            stay what they were, and each item says what was added.

    Raises:
        LorarecError: A maximum is below 1.

    Examples:
        >>> from lorarec import Boost, ItemFilter, ItemRules
        >>> cheap = ItemFilter.parse("price<=20")
        >>> rules = ItemRules(where=[cheap], at_most={"brand": 2}, boost=[Boost(ItemFilter("brand", "=", "Lux"), 0.5)])
        >>> rules.at_most
        {'brand': 2}
    """

    where: Sequence[ItemFilter] = ()
    at_most: Mapping[str, int] = field(default_factory=dict)
    boost: Sequence[Boost] = ()

    def __post_init__(self) -> None:
        for column, count in self.at_most.items():
            if count < 1:
                raise LorarecError(f"at most a number of items per {column} must be at least 1, got {count}")

    def of(self, items: ItemMatcher) -> "CatalogueRules":
        """Return the rules for the rows of a catalogue.

        Raises:
            LorarecError: The items have no such column, or an operator or value does not fit its values.
        """
        matches = [items.matches(each) for each in self.where]
        return CatalogueRules(
            blocked=~np.logical_and.reduce(matches) if matches else None,
            limits=[(items.groups(column), count) for column, count in self.at_most.items()],
            boosts=[(items.matches(each.where), each.add) for each in self.boost],
        )

    def as_dict(self) -> JsonObject:
        """Return the rules as values for JSON; empty if there are none."""
        rules = {
            "where": [_filter_values(each) for each in self.where],
            "at_most": dict(self.at_most),
            "boost": [{"where": _filter_values(each.where), "add": each.add} for each in self.boost],
        }
        return {name: value for name, value in rules.items() if value}


def _filter_values(where: ItemFilter) -> JsonObject:
    return {"column": where.column, "op": where.op, "value": list(where.values)}


@dataclass(frozen=True)
class CatalogueRules:
    """Rules of recommendations for the rows of a catalogue, in the order of `Dataset.items`.

    Attributes:
        blocked: Mask of the items that the filters leave out (items,), or None if there are no filters.
        limits: For each column the number of each item's value (items,), 0 if it is missing, and the maximum number of
            items with the same value.
        boosts: Mask (items,) of the items that a boost is added to, and the boost.
    """

    blocked: np.ndarray | None = None
    limits: Sequence[tuple[np.ndarray, int]] = ()
    boosts: Sequence[tuple[np.ndarray, float]] = ()

    def propose(
        self, index: "Index", history: Sequence[str], pool: int, top_k: int, blocked: np.ndarray | None = None
    ) -> "list[Proposal]":
        """Return the candidates that an index proposes for a history, all of which match the filters.

        If the limits would leave less than `top_k` of them, further candidates follow that are within the limits.

        Args:
            index: Index of the catalogue.
            history: Item ids, oldest first.
            pool: Number of candidates, without those that follow because of the limits.
            top_k: Number of items to recommend.
            blocked: Mask of further items that must not be proposed; see `Index.blocked`.
        """
        excluded = np.zeros(len(index.items), bool) if blocked is None else blocked.copy()
        if self.blocked is not None:
            excluded |= self.blocked
        proposals = more = index.propose(history, pool, excluded)
        counts = _Counts(self.limits)
        # A list to which no item can be added has at least this share of the longest one for each limit.
        missing = min(top_k, pool) * len(self.limits) - sum(counts.add(index.row[each.item_id]) for each in proposals)
        while missing > 0 and more:
            excluded[[index.row[each.item_id] for each in more]] = True
            more = index.propose(history, pool, excluded | counts.full())
            within = [each for each in more if counts.add(index.row[each.item_id])][:missing]
            proposals, missing = [*proposals, *within], missing - len(within)
        return proposals

    def added(self, rows: Sequence[int]) -> np.ndarray:
        """Return the sum of the boosts of each row (rows,)."""
        return sum((add * mask[rows] for mask, add in self.boosts), np.zeros(len(rows)))

    def best(self, rows: Sequence[int], scores: np.ndarray, top_k: int) -> list[int]:
        """Return the positions of the best candidates within the limits, by score and boosts.

        Args:
            rows: Rows of the candidates.
            scores: Scores of the candidates (candidates,); of equal ones, the first is better.
            top_k: Maximum number of positions.
        """
        order = np.argsort(-(scores + self.added(rows)), kind="stable").tolist()
        counts = _Counts(self.limits)
        return [place for place in order if counts.add(rows[place])][:top_k]


class _Counts:
    """Numbers of items with each value, which grow up to limits."""

    def __init__(self, limits: Sequence[tuple[np.ndarray, int]]) -> None:
        self._limits = limits
        self._counts: list[Counter[int]] = [Counter() for _ in limits]

    def add(self, row: int) -> bool:
        """Count an item if it is within all limits, and return whether it is."""
        values = [int(groups[row]) for groups, _ in self._limits]
        of_limits = list(zip(self._limits, self._counts, values, strict=True))
        if any(value and counts[value] >= limit for (_, limit), counts, value in of_limits):
            return False
        for counts, value in zip(self._counts, values, strict=True):
            counts[value] += 1
        return True

    def full(self) -> np.ndarray:
        """Return a mask (items,) of the items that are not within a limit any more."""
        masks = []
        for (groups, limit), counts in zip(self._limits, self._counts, strict=True):
            masks.append(np.isin(groups, [value for value, count in counts.items() if value and count >= limit]))
        return np.logical_or.reduce(masks)
