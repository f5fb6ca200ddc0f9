"""Choosers of a constant mixture: given, by validation NDCG, or by entropy over unlabelled prompts."""

from lorarec.mixing.analysis import effect_of_prompts, where_weight_goes
from lorarec.mixing.mix import METHODS, SCOPES, MixResult, mix
from lorarec.mixing.objectives import OBJECTIVES, Entropy
from lorarec.mixing.prompts import CasePrompts
from lorarec.mixing.simplex import check_weights, simplex_grid

__all__ = [
    "METHODS",
    "OBJECTIVES",
    "SCOPES",
    "CasePrompts",
    "Entropy",
    "MixResult",
    "check_weights",
    "effect_of_prompts",
    "mix",
    "simplex_grid",
    "where_weight_goes",
]
