"""Rules of a request for recommendations: filters, limits and boosts."""

from collections.abc import Iterator
from contextlib import contextmanager

from lorarec.data import ItemFilter, ItemMatcher
from lorarec.errors import LorarecError
from lorarec.retrieval import Boost, CatalogueRules, ItemRules
from lorarec.serving.errors import ApiError, FaultCollector
from lorarec.serving.schemas import ExplainRequest, ItemCondition, RecommendRequest


def request_rules(request: RecommendRequest | ExplainRequest, items: ItemMatcher) -> CatalogueRules:
    """Return the rules of a request for the rows of the catalogue; those of an explanation are filters only.

    Raises:
        ApiError: 422, if a rule does not fit the columns of the items.
    """
    faults = FaultCollector()
    where: list[ItemFilter] = []
    for index, condition in enumerate(request.where):
        with faults.collect():
            where.append(_item_filter(condition, items, f"where.{index}"))
    if isinstance(request, ExplainRequest):
        faults.refuse()
        return ItemRules(where).of(items)
    boost: list[Boost] = []
    for index, each in enumerate(request.boost):
        with faults.collect():
            boost.append(Boost(_item_filter(each.where, items, f"boost.{index}.where"), each.add))
    with faults.collect(), _refused("at_most"):
        rules = ItemRules(where, request.at_most, boost).of(items)
    faults.refuse()
    return rules


def _item_filter(condition: ItemCondition, items: ItemMatcher, field: str) -> ItemFilter:
    """Return the filter of a condition that the items have the column of."""
    with _refused(field):
        item_filter = ItemFilter(condition.column, condition.op, condition.value)
        items.matches(item_filter)
    return item_filter


@contextmanager
def _refused(field: str) -> Iterator[None]:
    """Convert an error of the library into one of a field of the request."""
    try:
        yield
    except LorarecError as error:
        raise ApiError(422, str(error), field) from error
