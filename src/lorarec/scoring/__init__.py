"""Scores of many candidates of a prompt at once, each as if it stood there alone."""

from lorarec.scoring.check import ScoringCheck, check_scoring, require_exact
from lorarec.scoring.head import logits
from lorarec.scoring.plan import PREFIX, ROWS, TREE, ScoringPlan, plan_for
from lorarec.scoring.reading import PromptReader
from lorarec.scoring.readout import read_scores, token_log_probs, verdict_scores
from lorarec.scoring.score import branch_scores, pad_rows, posterior, score, score_batch, token_batches
from lorarec.scoring.state import RowModule, rows_of
from lorarec.scoring.tree import TreeBatch, pack

__all__ = [
    "PREFIX",
    "ROWS",
    "TREE",
    "PromptReader",
    "RowModule",
    "ScoringCheck",
    "ScoringPlan",
    "TreeBatch",
    "branch_scores",
    "check_scoring",
    "logits",
    "pack",
    "pad_rows",
    "plan_for",
    "posterior",
    "read_scores",
    "require_exact",
    "rows_of",
    "score",
    "score_batch",
    "token_batches",
    "token_log_probs",
    "verdict_scores",
]
