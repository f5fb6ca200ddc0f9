"""The Ranker, generation, recommendation over a whole catalogue, and its explanation."""

from lorarec.ranking.catalogue import Recommendation, recommend, recommend_next
from lorarec.ranking.explain import Explanation, Influence, explain
from lorarec.ranking.generate import generate_titles
from lorarec.ranking.ranker import Ranker

__all__ = [
    "Explanation",
    "Influence",
    "Ranker",
    "Recommendation",
    "explain",
    "generate_titles",
    "recommend",
    "recommend_next",
]
