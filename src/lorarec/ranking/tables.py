"""Tables of recommendations and explanations for a terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from lorarec.ranking.explanation import Explanation
from lorarec.ranking.recommendation import Recommendation

REASONS = {
    "next": "often follows",
    "together": "chosen together with",
    "rules": "often soon after",
    "title": "titled like",
    "new": "new, titled like",
    "popular": "popular",
}


def recommendation_table(recommendations: Sequence[Recommendation], title: str) -> Table:
    """Return a table of rank, title, probability over the candidate pool, and the reason for each recommendation.

    A column of the boosts is added if any item has one.
    """
    table = Table(title=Text(title))
    boosted = any(item.boost for item in recommendations)
    for name in ("#", "title", "p", *(["boost"] if boosted else []), "why"):
        table.add_column(name)
    for place, item in enumerate(recommendations, start=1):
        because = "; ".join(item.because)
        reason = f"{REASONS[item.source]} {because}".strip()
        boost = [f"{item.boost:+g}"] if boosted else []
        # Text keeps square brackets in titles from being read as markup.
        table.add_row(str(place), Text(item.title), f"{item.probability:.3f}", *boost, Text(reason))
    return table


def parts_table(explanation: Explanation, title: str) -> Table:
    """Return a table of the parts of an item's score, the largest first."""
    table = Table(title=Text(title))
    table.add_column("part of the score")
    table.add_column("adds", justify="right")
    for name, part in sorted(explanation.parts.items(), key=lambda each: -abs(each[1])):
        table.add_row(Text(name), f"{part:+.3f}")
    return table


def explanation_table(explanation: Explanation, title: str) -> Table:
    """Return a table of the influences of the history on an item, the strongest first."""
    table = Table(title=Text(title))
    table.add_column("item of the history")
    for name in ("score", "p"):
        table.add_column(name, justify="right")
    for influence in sorted(explanation.influences, key=lambda each: -abs(each.score)):
        table.add_row(Text(influence.title), f"{influence.score:+.3f}", f"{influence.probability:+.4f}")
    return table
