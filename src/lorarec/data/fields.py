"""Cleaning of raw columns: ids, titles, times and ratings. Errors name the row of a value that cannot be used."""

import html
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl

from lorarec.data.column_tables import more_rows, row_number
from lorarec.data.columns import ITEM, RATING, TIME, USER
from lorarec.data.tables import Decimal, Ids, TableFormat, without_missing
from lorarec.data.times import parse_times, within_seconds
from lorarec.errors import LorarecError
from lorarec.io import JsonObject

_ROWS_NAMED = 5
_WITHIN = "within second"
#: Bits of the significand of floating point types other than Float64.
_PRECISION: dict[pl.DataType, int] = {pl.Float16(): 11, pl.Float32(): 24}
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\ufeff]")


def clean_title(text: str | None) -> str | None:
    """Return a title as one line of plain text, or None if nothing is left.

    HTML entities, also twice encoded ones, are decoded; tags, invisible characters and superfluous white space are
    removed.

    Examples:
        >>> clean_title("  Ben &amp;amp; Jerry&#39;s\\n<b>Ice</b> ")
        "Ben & Jerry's Ice"
    """
    if text is None:
        return None
    if "&" in text:
        text = html.unescape(html.unescape(text))
    text = _UNSEEN.sub("", _TAG.sub(" ", text))
    return " ".join(text.split()) or None


def clean_titles(titles: pl.Series) -> pl.Series:
    """Apply `clean_title` to every entry; entries that represent a missing title, such as NA or null, become null."""
    cleaned = [clean_title(text) for text in without_missing(titles.cast(pl.String)).to_list()]
    return pl.Series(titles.name, cleaned, pl.String)


def clean_interactions(
    raw: pl.DataFrame,
    where: str | Path,
    options: TableFormat | None = None,
    name_row: Callable[[int], str] = row_number,
) -> pl.DataFrame:
    """Write ids as text, timestamps as whole seconds and ratings as float32.

    Args:
        raw: The columns user_id, item_id, timestamp and optionally rating, of any type.
        where: The name of the file, for error messages.
        options: Format of the values.
        name_row: Function from the number of a row, from 0, to its name in error messages ("line 7").

    Returns:
        One row for each row of `raw`. Timestamps that are dropped because of `options.bad_times` are null.

    Raises:
        LorarecError: An id is missing, blank or rounded, or a timestamp or rating cannot be read; the row is named.
    """
    options = options or TableFormat()
    columns = []
    for name in (USER, ITEM):
        ids = clean_ids(raw[name], options.ids)
        _refuse(ids.is_null() | (ids.str.strip_chars() == ""), raw[name], where, name_row)
        refuse_rounded(raw[name], where, name_row)
        columns.append(ids)
    times = parse_times(
        raw[TIME], where, time_format=options.time_format, bad_times=options.bad_times, name_row=name_row
    )
    columns.append(times)
    if RATING in raw.columns:
        columns.append(_ratings(raw[RATING], options.decimal, where, name_row))
    return pl.DataFrame(columns)


def read_interactions(
    raw: pl.DataFrame, where: str | Path, options: TableFormat, name_row: Callable[[int], str] = row_number
) -> tuple[pl.DataFrame, JsonObject]:
    """Return the rows of `clean_interactions` without bad times, and a report of the rows that were dropped.

    Where times are finer than seconds, the rows of the same second are in the order of their times.
    """
    rows = clean_interactions(raw, where, options, name_row)
    within = within_seconds(raw[TIME], options.time_format)
    if within is None:
        return _without_bad_times(rows, options, name_row)
    rows, report = _without_bad_times(rows.with_columns(within.alias(_WITHIN)), options, name_row)
    return rows.sort(_WITHIN, maintain_order=True).drop(_WITHIN), report


def _without_bad_times(
    rows: pl.DataFrame, options: TableFormat, name_row: Callable[[int], str]
) -> tuple[pl.DataFrame, JsonObject]:
    if options.bad_times != "drop":
        return rows, {}
    bad = rows[TIME].is_null()
    first = [name_row(row) for row in bad.arg_true().head(_ROWS_NAMED).to_list()]
    return rows.filter(~bad), {"rows_with_bad_times_dropped": int(bad.sum()), "first_of_them": first}


def clean_ids(ids: pl.Series, mode: Ids | None = None) -> pl.Series:
    """Convert ids to text: as they are written, stripped of white space, or with numbers also in their simplest form.

    Examples:
        >>> clean_ids(pl.Series([" 12.0", "012", "a7"]), "numbers").to_list()
        ['12', '12', 'a7']
    """
    if ids.dtype.is_float():
        ids = ids.fill_nan(None)
    text = ids.cast(pl.String)
    if mode in ("trimmed", "numbers"):
        text = text.str.strip_chars()
    if mode == "numbers":
        text = text.str.replace(r"^0*(\d+)(?:\.0*)?$", "$1")
    return text


def _ratings(
    ratings: pl.Series, decimal: Decimal | None, where: str | Path, name_row: Callable[[int], str]
) -> pl.Series:
    if ratings.dtype.is_temporal():
        raise LorarecError(f"{where}: column {RATING} has type {ratings.dtype}: name a column of numbers instead")
    parsed = ratings.cast(pl.Float32, strict=False)
    text = ratings
    if ratings.dtype == pl.String and parsed.null_count():
        text = without_missing(ratings)
        point = text.str.replace(",", ".", literal=True) if _decimal_commas(text, decimal, where, name_row) else text
        parsed = point.cast(pl.Float32, strict=False)
    _refuse((parsed.is_null() & text.is_not_null()) | parsed.is_infinite().fill_null(False), ratings, where, name_row)
    return parsed.fill_nan(None)


def _decimal_commas(
    text: pl.Series, decimal: Decimal | None, where: str | Path, name_row: Callable[[int], str]
) -> bool:
    """Return whether ratings have decimal commas.

    Raises:
        LorarecError: `decimal` is None and all commas could also be thousands separators.
    """
    if decimal is not None:
        return decimal == "comma"
    with_comma = text.str.contains(r"^[+-]?\d+,\d+$").fill_null(False)
    if not with_comma.any() or text.str.contains(".", literal=True).any():
        return False
    thousands = text.str.contains(r"^[+-]?\d{1,3},\d{3}$").fill_null(False)
    if (thousands == with_comma).all():
        row = int(with_comma.arg_max() or 0)
        raise LorarecError(
            f"{where}: {name_row(row)} has {RATING} {text[row]!r}, whose comma may be a decimal comma or separate "
            'thousands: use decimal="comma" if it is a decimal comma, otherwise remove the commas'
        )
    return True


def refuse_rounded(ids: pl.Series, where: str | Path, name_row: Callable[[int], str] = row_number) -> None:
    """Refuse floating point ids so large that their type cannot represent all integers.

    Raises:
        LorarecError: There is one; the first is named.
    """
    if not ids.dtype.is_float():
        return
    rounded = (ids.fill_nan(None).abs() >= 2 ** _PRECISION.get(ids.dtype, 53)).fill_null(False)
    if rounded.any():
        row = int(rounded.arg_max() or 0)
        raise LorarecError(
            f"{where}: {name_row(row)} has {ids.name} {ids[row]!r} as a number of type {ids.dtype}, which rounds "
            "numbers of this size, so that different ids become one: write the column again from its source as text"
        )


def _refuse(bad: pl.Series, values: pl.Series, where: str | Path, name_row: Callable[[int], str]) -> None:
    if not bad.any():
        return
    at = int(bad.arg_max() or 0)
    value, others = values[at], int(bad.sum()) - 1
    missing = value is None or not str(value).strip()
    problem = f"has no {values.name}" if missing else f"has {values.name} {value!r}, which cannot be read"
    raise LorarecError(f"{where}: {name_row(at)} {problem}{more_rows(others)}: fix or remove it")
