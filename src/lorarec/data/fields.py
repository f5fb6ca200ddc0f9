"""From the text of raw columns to clean values; what cannot be used is named by its row."""

import html
import re
from pathlib import Path

import polars as pl

from lorarec.data.columns import ITEM, RATING, TIME, USER
from lorarec.errors import LorarecError

_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\ufeff]")
# Whole numbers at least this large count milliseconds, microseconds and nanoseconds: as seconds they lie beyond
# the year 5000.
_FINER_UNITS = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3))
_ISO_FORMS = ("%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")


def clean_title(text: str | None) -> str | None:
    """One line of plain text: HTML entities decoded (also twice encoded ones), tags, invisible characters and
    surplus white space gone; None if nothing is left.

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
    """`clean_title` of every entry."""
    cleaned = [clean_title(text) for text in titles.cast(pl.String).to_list()]
    return pl.Series(titles.name, cleaned, pl.String)


def clean_interactions(raw: pl.DataFrame, where: str | Path) -> pl.DataFrame:
    """Ids as text, timestamps as whole seconds, ratings as float32.

    Args:
        raw: user_id, item_id, timestamp and perhaps rating, of any type.
        where: the file, for messages.

    Raises:
        LorarecError: an id is missing or empty, or a timestamp or rating is not one; the row is named.
    """
    ids = raw.select(pl.col(USER, ITEM).cast(pl.String))
    for column in ids:
        _refuse(column.is_null() | (column == ""), raw[column.name], column.name, where)
    columns = [*ids, parse_times(raw[TIME], where)]
    if RATING in raw.columns:
        rating = raw[RATING]
        numbers = rating.cast(pl.Float32, strict=False)
        blank = rating.is_null() if rating.dtype != pl.String else rating.fill_null("").str.strip_chars() == ""
        _refuse(numbers.is_null() & ~blank, rating, RATING, where)
        columns.append(numbers)
    return pl.DataFrame(columns)


def parse_times(times: pl.Series, where: str | Path) -> pl.Series:
    """Whole seconds from seconds, milliseconds (micro, nano) since 1970, dates, or ISO 8601 text (UTC if no zone).

    The unit of numbers is told from the largest of them. Positions (0, 1, 2, ...) pass unchanged.

    Raises:
        LorarecError: an entry is missing or cannot be read; the row is named.
    """
    if times.dtype in (pl.Date, pl.Datetime):
        seconds = times.dt.epoch("s").cast(pl.Int64)
    elif times.dtype == pl.String:
        seconds = _times_from_text(times.str.strip_chars())
    else:
        seconds = _whole_seconds(times.cast(pl.Int64, strict=False))
    _refuse(seconds.is_null(), times, TIME, where)
    return seconds.alias(TIME)


def _times_from_text(text: pl.Series) -> pl.Series:
    numbers = text.cast(pl.Int64, strict=False)
    if numbers.null_count():
        rounded = text.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
        numbers = numbers.zip_with(numbers.is_not_null(), rounded)
    numbers = _whole_seconds(numbers)
    if not numbers.null_count():
        return numbers
    spaced = text.str.replace("T", " ", literal=True).str.replace(r"(?i)z$", "+0000")
    frame = pl.DataFrame({"text": spaced})
    parsed = frame.select(pl.coalesce(_iso_seconds(form) for form in _ISO_FORMS)).to_series()
    return numbers.zip_with(numbers.is_not_null(), parsed)


def _iso_seconds(form: str) -> pl.Expr:
    return pl.col("text").str.to_datetime(form, strict=False, time_unit="us").dt.epoch("s").cast(pl.Int64)


def _whole_seconds(numbers: pl.Series) -> pl.Series:
    largest = max(abs(int(numbers.max() or 0)), abs(int(numbers.min() or 0)))  # type: ignore[arg-type]
    for threshold, per_second in _FINER_UNITS:
        if largest >= threshold:
            return numbers // per_second
    return numbers


def _refuse(bad: pl.Series, values: pl.Series, what: str, where: str | Path) -> None:
    if not bad.any():
        return
    at = int(bad.arg_max() or 0)
    value, others = values[at], int(bad.sum()) - 1
    problem = f"has no {what}" if value is None or value == "" else f"has {what} {value!r}, which cannot be read"
    more = f" (and {others} more rows)" if others else ""
    raise LorarecError(f"{where}: row {at + 1} {problem}{more}: mend or remove it")
