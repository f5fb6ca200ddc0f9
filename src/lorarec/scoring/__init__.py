"""One pass over a prompt and its candidate branches."""

from lorarec.scoring.layout import TreeBatch, additive, pack
from lorarec.scoring.readout import finish_logits, read_scores, token_log_probs, verdict_scores
from lorarec.scoring.score import posterior, score, score_batch, token_batches, trunk

__all__ = [
    "TreeBatch",
    "additive",
    "finish_logits",
    "pack",
    "posterior",
    "read_scores",
    "score",
    "score_batch",
    "token_batches",
    "token_log_probs",
    "trunk",
    "verdict_scores",
]
