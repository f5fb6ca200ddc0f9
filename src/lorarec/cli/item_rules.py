"""Rules of recommendations by columns of the items, as the command line writes them."""

from collections.abc import Sequence

from lorarec.data import ItemFilter
from lorarec.errors import LorarecError
from lorarec.retrieval import Boost, ItemRules


def read_rules(where: Sequence[str], at_most: Sequence[str], boost: Sequence[str]) -> ItemRules:
    """Read rules.

    Args:
        where: Filters, such as price<=20.
        at_most: COLUMN=NUMBER, such as brand=2.
        boost: A number, a colon and a filter, such as 0.5:brand=Lux.

    Raises:
        LorarecError: A text cannot be read.
    """
    return ItemRules(
        where=[ItemFilter.parse(text) for text in where],
        at_most=dict(_read_limit(text) for text in at_most),
        boost=[_read_boost(text) for text in boost],
    )


def _read_limit(text: str) -> tuple[str, int]:
    column, _, count = text.rpartition("=")
    if not column.strip() or not count.strip().isdecimal():
        raise LorarecError(f"--at-most {text} must be COLUMN=NUMBER, as in brand=2")
    return column.strip(), int(count)


def _read_boost(text: str) -> Boost:
    number, _, where = text.partition(":")
    try:
        add = float(number)
    except ValueError:
        raise LorarecError(f"--boost {text} must be NUMBER:FILTER, as in 0.5:brand=Lux") from None
    return Boost(ItemFilter.parse(where), add)
