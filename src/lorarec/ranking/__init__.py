"""The Ranker, generation, and recommendation over a whole catalogue."""

from lorarec.ranking.catalogue import Recommendation, recommend, recommend_next
from lorarec.ranking.generate import generate_titles
from lorarec.ranking.ranker import Ranker
from lorarec.ranking.vllm_engine import VllmEngine

__all__ = ["Ranker", "Recommendation", "VllmEngine", "generate_titles", "recommend", "recommend_next"]
