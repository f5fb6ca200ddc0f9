"""Protocols run over rankers, and reports with figures, intervals and a picture."""

from lorarec.evaluation.baselines import ItemNeighbours, Popularity, Random, TitleSimilarity, baseline_rows
from lorarec.evaluation.click_report import click_table, report_clicks, told_of_test, write_click_report
from lorarec.evaluation.clicks import ClickEvaluation, evaluate_clicks
from lorarec.evaluation.evaluate import evaluate
from lorarec.evaluation.leaning import UserRow, leaning, report_choice, told_of_leaning
from lorarec.evaluation.predictions import read_predictions
from lorarec.evaluation.ranker_row import RankerRow
from lorarec.evaluation.report import write_report
from lorarec.evaluation.result import Evaluation, Figure, RowResult, Scorer, SettingResult
from lorarec.evaluation.rows import ranker_rows, split_warning
from lorarec.evaluation.tables import evaluation_table

__all__ = [
    "ClickEvaluation",
    "Evaluation",
    "Figure",
    "ItemNeighbours",
    "Popularity",
    "Random",
    "RankerRow",
    "RowResult",
    "Scorer",
    "SettingResult",
    "TitleSimilarity",
    "UserRow",
    "baseline_rows",
    "click_table",
    "evaluate",
    "evaluate_clicks",
    "evaluation_table",
    "leaning",
    "ranker_rows",
    "read_predictions",
    "report_choice",
    "report_clicks",
    "split_warning",
    "told_of_leaning",
    "told_of_test",
    "write_click_report",
    "write_report",
]
