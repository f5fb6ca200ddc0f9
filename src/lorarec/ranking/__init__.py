"""The Ranker, generation, recommendation over a whole catalogue, and its explanation."""

from lorarec.ranking.catalogue import Recommendation, recommend, recommend_next
from lorarec.ranking.explain import Explanation, Influence, explain
from lorarec.ranking.generate import generate_titles
from lorarec.ranking.ranker import Ranker
from lorarec.ranking.vllm_engine import VllmEngine

__all__ = [
    "Explanation",
    "Influence",
    "Ranker",
    "Recommendation",
    "VllmEngine",
    "explain",
    "generate_titles",
    "recommend",
    "recommend_next",
]
