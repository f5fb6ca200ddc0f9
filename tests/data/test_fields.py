"""Titles, timestamps and ids as users have them."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from lorarec.data.fields import clean_interactions, clean_title, parse_times
from lorarec.errors import LorarecError

MOMENT = 1_400_000_000  # 2014-05-13T16:53:20Z


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  Toy\n\tStory ", "Toy Story"),
        ("Ben &amp; Jerry&#39;s", "Ben & Jerry's"),
        ("Tom &amp;amp; Jerry &quot;X&quot;", 'Tom & Jerry "X"'),
        ("<b>Bold</b><br/>text", "Bold text"),
        ("I <3 you, 5 > 4", "I <3 you, 5 > 4"),
        ("Caf\u00e9\u200b \ufeff\x00noir", "Caf\u00e9 noir"),
        ("&nbsp; ", None),
        ("", None),
        (None, None),
    ],
)
def test_clean_title(raw: str | None, clean: str | None) -> None:
    assert clean_title(raw) == clean


@pytest.mark.parametrize(
    "values",
    [
        [MOMENT],
        [float(MOMENT)],
        [MOMENT * 1000],
        [MOMENT * 10**6],
        [MOMENT * 10**9],
        [str(MOMENT)],
        [f" {MOMENT}.0 "],
        [str(MOMENT * 1000)],
        ["2014-05-13T16:53:20Z"],
        ["2014-05-13 16:53:20"],
        ["2014-05-13T16:53:20.123456"],
        ["2014-05-13T18:53:20+02:00"],
        [datetime(2014, 5, 13, 16, 53, 20, tzinfo=UTC)],
        [datetime(2014, 5, 13, 16, 53, 20)],
    ],
    ids=str,
)
def test_forms_of_time(values: list[object]) -> None:
    assert parse_times(pl.Series("timestamp", values), "log").to_list() == [MOMENT]


def test_dates_and_positions() -> None:
    assert parse_times(pl.Series([date(1970, 1, 2)]), "log").to_list() == [86400]
    assert parse_times(pl.Series(["1970-01-02", "1970-01-02 00:01"]), "log").to_list() == [86400, 86460]
    assert parse_times(pl.Series([0, 1, 2]), "log").to_list() == [0, 1, 2]


def _log(**columns: list[object]) -> pl.DataFrame:
    return pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "y"], "timestamp": ["1", "2"]} | columns)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"timestamp": ["1", "soon"]}, r"log\.csv: row 2 has timestamp 'soon', which cannot be read"),
        (
            {"timestamp": ["2014-13-45", "x"]},
            r"row 1 has timestamp '2014-13-45', which cannot be read \(and 1 more rows",
        ),
        ({"timestamp": ["1", ""]}, "row 2 has no timestamp"),
        ({"timestamp": [None, 2]}, "row 1 has no timestamp"),
        ({"timestamp": [1.0, float("nan")]}, "row 2 has timestamp nan"),
        ({"user_id": ["a", None]}, "row 2 has no user_id"),
        ({"item_id": ["", "y"]}, "row 1 has no item_id"),
        ({"rating": ["5", "five"]}, "row 2 has rating 'five'"),
    ],
)
def test_unreadable_rows_are_named(columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        clean_interactions(_log(**columns), "log.csv")


def test_ids_become_text_and_blank_ratings_null() -> None:
    clean = clean_interactions(_log(user_id=[1, 2], rating=["", "4.5"]), "log.csv")
    assert clean["user_id"].to_list() == ["1", "2"]
    assert clean["rating"].to_list() == [None, 4.5]
