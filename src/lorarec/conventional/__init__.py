"""Conventional, id-based recommenders: click models that routers read and tables compare with."""

from lorarec.conventional.base import Recommender
from lorarec.conventional.conventional import Conventional
from lorarec.conventional.fit import FitOptions, fit
from lorarec.conventional.registry import MODELS
from lorarec.conventional.retriever import Retriever

__all__ = ["MODELS", "Conventional", "FitOptions", "Recommender", "Retriever", "fit"]
