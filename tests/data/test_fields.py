"""Titles, timestamps and ids as users have them."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from lorarec.data.fields import clean_ids, clean_interactions, clean_title, clean_titles
from lorarec.data.tables import TableFormat
from lorarec.data.times import parse_times
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
            r"row 1 has timestamp '2014-13-45', which cannot be read \(and 1 more row\)",
        ),
        ({"timestamp": ["1", ""]}, "row 2 has no timestamp"),
        ({"timestamp": [None, 2]}, "row 1 has no timestamp"),
        ({"timestamp": [1.0, float("nan")]}, "row 2 has timestamp nan"),
        ({"user_id": ["a", None]}, "row 2 has no user_id"),
        ({"item_id": ["", "y"]}, "row 1 has no item_id"),
        ({"item_id": ["x", " \t"]}, "row 2 has no item_id"),
        ({"item_id": [5.0, 2.0**53]}, "row 2 has item_id 9007199254740992.0 as a number of type Float64, which rounds"),
        ({"rating": [date(2023, 11, 14)] * 2}, "column rating has type Date"),
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


@pytest.mark.parametrize(
    "text", ["NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "\\N", "", " "]
)
def test_words_for_missing_values(text: str) -> None:
    assert clean_titles(pl.Series([text, f" {text} ", "Nan", "Null Island"])).to_list() == [
        None,
        None,
        "Nan",
        "Null Island",
    ]
    assert clean_interactions(_log(rating=[text, "4.5"]), "log.csv")["rating"].to_list() == [None, 4.5]
    with pytest.raises(LorarecError, match="row 2 has no timestamp"):
        clean_interactions(_log(timestamp=["1", text]), "log.csv")


@pytest.mark.parametrize(
    ("ratings", "decimal", "read"),
    [
        (["4,5", "3"], None, [4.5, 3.0]),
        (["4,5", "NA"], None, [4.5, None]),
        (["4,125", "3,5"], None, [4.125, 3.5]),
        (["1,250", "2"], "comma", [1.25, 2.0]),
        (["-0,5", "+1,25"], None, [-0.5, 1.25]),
        (["4.5", "3"], "point", [4.5, 3.0]),
        ([float("nan"), 2.0], None, [None, 2.0]),
    ],
)
def test_decimal_commas_of_ratings(ratings: list[object], decimal: str | None, read: list[float | None]) -> None:
    options = TableFormat(decimal=decimal)  # type: ignore[arg-type]
    assert clean_interactions(_log(rating=ratings), "log", options)["rating"].to_list() == read


@pytest.mark.parametrize(
    ("ratings", "decimal", "message"),
    [
        (
            ["1,234", "2"],
            None,
            "row 1 has rating '1,234', whose comma may be a decimal comma or separate thousands",
        ),
        (["4,5", "3.5"], None, "row 1 has rating '4,5', which cannot be read"),
        (["4,5", "3"], "point", "row 1 has rating '4,5', which cannot be read"),
        (["1,234,567", "2"], None, "row 1 has rating '1,234,567', which cannot be read"),
        (["inf", "2"], None, "row 1 has rating 'inf', which cannot be read"),
    ],
)
def test_ratings_that_may_mean_two_things(ratings: list[str], decimal: str | None, message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        clean_interactions(_log(rating=ratings), "log", TableFormat(decimal=decimal))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "how", "clean"),
    [
        (["a ", " a", "012"], None, ["a ", " a", "012"]),
        (["a ", " a", "012"], "trimmed", ["a", "a", "012"]),
        (
            ["12.0", "012", " 12", "12.", "12.5", "0", "00", "a01"],
            "numbers",
            ["12", "12", "12", "12", "12.5", "0", "0", "a01"],
        ),
        ([12.0, 13.0], "numbers", ["12", "13"]),
        ([12.0, None], None, ["12.0", None]),
    ],
)
def test_ids(ids: list[object], how: str | None, clean: list[str]) -> None:
    assert clean_ids(pl.Series(ids), how).to_list() == clean  # type: ignore[arg-type]


def test_not_a_number_is_no_id() -> None:
    with pytest.raises(LorarecError, match="row 2 has user_id nan"):
        clean_interactions(_log(user_id=[1.0, float("nan")]), "log.csv")
