"""Tables of reports, in Markdown and for a terminal, with one format for numbers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from lorarec.evaluation.result import MetricResult


@dataclass(frozen=True)
class NumberCell:
    """A number in a table.

    Attributes:
        value: The number.
        digits: Digits after the decimal point.
        interval: Lower and upper end of the interval of the number.
        deviation: Standard deviation of the number.
        significant: Whether a star marks the number; None if the number was not tested.
        best: Whether the number is bold.
    """

    value: float
    digits: int = 3
    interval: tuple[float, float] | None = None
    deviation: float | None = None
    significant: bool | None = None
    best: bool = False

    @classmethod
    def of(cls, result: MetricResult, digits: int = 3, best: bool = False) -> "NumberCell":
        """Make the cell of a metric with its interval."""
        return cls(result.mean, digits, (result.low, result.high), None, result.significant, best)

    def markdown(self) -> str:
        """Return the cell in Markdown."""
        number = f"{self.value:.{self.digits}f}"
        return (f"**{number}**" if self.best else number) + ("\\*" if self.significant else "") + self._spread()

    def text(self) -> Text:
        """Return the cell for a terminal; a space replaces a missing star to align numbers."""
        star = "" if self.significant is None else " *"[self.significant]
        return Text(f"{self.value:.{self.digits}f}{star}{self._spread()}", style="bold" if self.best else "")

    def _spread(self) -> str:
        deviation = "" if self.deviation is None else f" ± {self.deviation:.{self.digits}f}"
        if self.interval is None:
            return deviation
        low, high = self.interval
        return f"{deviation} [{low:.{self.digits}f}, {high:.{self.digits}f}]"


Cell = str | NumberCell


@dataclass(frozen=True)
class ReportTable:
    """A table of a report.

    Attributes:
        columns: Titles of the columns.
        rows: Cells of each row, one for each column.
        text_columns: Number of the first columns that hold text and are aligned to the left; the others hold numbers.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text_columns: int = 1

    def markdown(self) -> list[str]:
        """Return the lines of the table in Markdown."""
        rule = "|---" * self.text_columns + "|---:" * (len(self.columns) - self.text_columns) + "|"
        return [_line(self.columns), rule, *map(_line, self.rows)]

    def to_rich(self, title: str, caption: str | None = None) -> Table:
        """Return the table for a terminal."""
        table = Table(title=Text(title), caption=None if caption is None else Text(caption))
        for number, name in enumerate(self.columns):
            table.add_column(Text(name), justify="left" if number < self.text_columns else "right")
        for row in self.rows:
            table.add_row(*(Text(cell) if isinstance(cell, str) else cell.text() for cell in row))
        return table


def _line(cells: Sequence[Cell]) -> str:
    texts = [escape_markdown(cell) if isinstance(cell, str) else cell.markdown() for cell in cells]
    return f"| {' | '.join(texts)} |"


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, inside a table too."""
    return re.sub(r"([|*_])", r"\\\1", text)


def describe_options(options: Mapping[str, object]) -> str:
    """Return options in one line: each name with its value."""
    return ", ".join(f"{name} {value}" for name, value in options.items())


def versions_line(versions: Mapping[str, str]) -> str:
    """Return a report's line about versions of packages."""
    return f"- versions: {describe_options(versions)}"
