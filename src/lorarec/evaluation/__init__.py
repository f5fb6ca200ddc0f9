"""Protocols run over rankers, and reports with figures, intervals and a picture."""

from lorarec.evaluation.baselines import Popularity, Random, TitleSimilarity, baseline_rows
from lorarec.evaluation.evaluate import evaluate
from lorarec.evaluation.ranker_row import RankerRow
from lorarec.evaluation.report import write_report
from lorarec.evaluation.result import Evaluation, Figure, RowResult, Scorer, SettingResult
from lorarec.evaluation.rows import ranker_rows, split_warning
from lorarec.evaluation.tables import evaluation_table

__all__ = [
    "Evaluation",
    "Figure",
    "Popularity",
    "Random",
    "RankerRow",
    "RowResult",
    "Scorer",
    "SettingResult",
    "TitleSimilarity",
    "baseline_rows",
    "evaluate",
    "evaluation_table",
    "ranker_rows",
    "split_warning",
    "write_report",
]
