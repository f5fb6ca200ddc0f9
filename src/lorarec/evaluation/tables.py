"""Evaluations for a person at a terminal."""

from rich.table import Table
from rich.text import Text

from lorarec.errors import LorarecError
from lorarec.evaluation.result import SIGNIFICANT, Evaluation, MetricResult


def evaluation_table(evaluation: Evaluation, setting: str) -> Table:
    """The main figures of one setting; the best mean of a column is bold, a star marks p < 0.05.

    Raises:
        LorarecError: the setting was not evaluated.
    """
    if setting not in evaluation.settings:
        raise LorarecError(f"setting {setting} was not evaluated: choose from {', '.join(evaluation.settings)}")
    result = evaluation.settings[setting]
    title = f"{evaluation.protocol['dataset']['name']}, {setting}: {result.cases:,} cases"
    caption = f"[95% interval]; * differs from {result.compare_with} (paired t-test, p < {SIGNIFICANT})"
    table = Table(title=Text(title), caption=Text(caption))
    table.add_column("row")
    for name in ("NDCG@1", "NDCG@3", "HR@10", "MRR", "ms/user"):
        table.add_column(name, justify="right")
    columns = ("ndcg@1", "ndcg@3", "hr@10", "mrr")
    best = {name: max(row.figures[name].mean for row in result.rows.values()) for name in columns}
    for row in result.rows.values():
        cells = []
        for name in columns:
            figure = row.figures[name]
            style = "bold" if figure.mean == best[name] else ""
            cells.append(Text(_cell(figure, interval=name.startswith("ndcg")), style=style))
        table.add_row(Text(row.name), *cells, f"{1000 * row.seconds_per_user:.3g}")
    return table


def _cell(figure: MetricResult, interval: bool) -> str:
    mark = "*" if figure.significant else " "
    return f"{figure.mean:.3f}{mark}" + (f" [{figure.low:.3f}, {figure.high:.3f}]" if interval else "")
