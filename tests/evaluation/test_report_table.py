"""Tables of reports, in Markdown and for a terminal."""

import numpy as np
import pytest
from rich.console import Console

from lorarec.evaluation import MetricResult, NumberCell, ReportTable, RowResult, SettingResult, escape_markdown


@pytest.mark.parametrize(
    ("cell", "markdown", "text"),
    [
        (NumberCell(0.25), "0.250", "0.250"),
        (NumberCell(0.25, digits=1), "0.2", "0.2"),
        (NumberCell(0.25, interval=(0.2, 0.3)), "0.250 [0.200, 0.300]", "0.250 [0.200, 0.300]"),
        (NumberCell(0.25, significant=True, best=True), "**0.250**\\*", "0.250*"),
        (NumberCell(0.25, significant=False), "0.250", "0.250 "),
        (NumberCell(0.25, 2, (0.2, 0.3), deviation=0.01), "0.25 ± 0.01 [0.20, 0.30]", "0.25 ± 0.01 [0.20, 0.30]"),
        (NumberCell.of(MetricResult(0.25, 0.2, 0.3, 0.01, 0.02), best=True), "**0.250**\\* [0.200, 0.300]", None),
        (NumberCell.of(MetricResult(0.25, 0.2, 0.3, 0.01, 0.06)), "0.250 [0.200, 0.300]", None),
        (NumberCell.of(MetricResult(0.25, 0.2, 0.3, None), digits=4), "0.2500 [0.2000, 0.3000]", None),
    ],
)
def test_format_of_numbers(cell: NumberCell, markdown: str, text: str | None) -> None:
    assert cell.markdown() == markdown
    assert text is None or cell.text().plain == text
    assert (str(cell.text().style) == "bold") == cell.best


def test_means_that_differ_by_rounding_are_all_the_best() -> None:
    means = {"a": 0.1 + 0.2, "b": 0.3, "c": 0.299999}
    rows = {
        name: RowResult(name, np.ones(1), {"mrr": MetricResult(mean, 0, 1, None)}, 0.0, "")
        for name, mean in means.items()
    }
    result = SettingResult("warm", 1, 1, "", "a", rows)
    assert [result.is_best(name, "mrr") for name in "abc"] == [True, True, False]


def test_markdown_aligns_numbers_and_escapes_texts() -> None:
    table = ReportTable(["row", "other", "p_value"], [["a|b", "*", NumberCell(1)]], text_columns=2)
    assert table.markdown() == ["| row | other | p\\_value |", "|---|---|---:|", "| a\\|b | \\* | 1.000 |"]
    assert escape_markdown("[plain] text-1") == "[plain] text-1"


def test_terminal_shows_texts_as_they_are() -> None:
    console = Console(width=60)
    with console.capture() as capture:
        console.print(ReportTable(["row", "n"], [["[red]a_b", NumberCell(1, 0)]]).to_rich("[title]", "caption"))
    for text in ("[title]", "[red]a_b", "caption"):
        assert text in capture.get()
