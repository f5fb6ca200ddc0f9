"""Parsing of timestamps: numbers in any unit, dates and text become whole seconds."""

import re
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from lorarec.data.column_tables import more_rows, row_number
from lorarec.data.columns import TIME
from lorarec.data.tables import BadTimes, without_missing
from lorarec.errors import LorarecError

#: Numbers since 1970: the unit, the first and the last number that is read in it, units per second. In each a number
#: lies between 1973 and 2286; smaller numbers are positions. Nanoseconds begin in 1992, since smaller numbers of their
#: size are ticks of 100 nanoseconds, which .NET counts from the year 1 (6.4e17 in 2023) and Windows from 1601 (1.3e17).
_UNITS = (
    ("seconds", 10**8, 10**10 - 1, 1),
    ("milliseconds", 10**11, 10**13 - 1, 10**3),
    ("microseconds", 10**14, 10**16 - 1, 10**6),
    ("nanoseconds", 7 * 10**17, 2**63 - 1, 10**9),
)
#: The first moment, in 1973; smaller timestamps are positions in a sequence.
EARLIEST_MOMENT = 10**8
#: Dates and times written as the digits of one number: the format, the smallest and the largest such number.
_DIGITS = (
    ("%Y%m%d", 19000101, 21001231),
    ("%Y%m%d%H%M", 190001010000, 210012312359),
    ("%Y%m%d%H%M%S", 19000101000000, 21001231235959),
)
#: The range of plausible times, 1901 to 2050, in seconds.
EARLIEST_TIME, LATEST_TIME = -2_177_452_800, 2_524_608_000
#: Within that range, this number stands for no time.
_LARGEST_INT32 = 2**31 - 1
_DAY = 86_400
#: The largest whole number up to which 32-bit floating point numbers have all whole numbers.
_EXACT_FLOAT32 = 2**24
_ISO_FORMS = (
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M%#z",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%Y%m%d %H%M%S%#z",
    "%Y%m%d %H%M%S",
)
_READ = (
    "supported are seconds, milliseconds, microseconds or nanoseconds since 1970, positions (0, 1, 2), 20231114, "
    "2023-11-14, 2023-11-14 22:13:20, 2023-11-14T22:13:20.5Z, 2023-11-14 22:13:20 UTC and 2023-11-14T22:13:20+01:00; "
    'other formats need an option such as time_format="%d.%m.%Y" (14.11.2023) or time_format="%m/%d/%Y" (11/14/2023)'
)
_NAMED = 3


def parse_moment(text: str, option: str) -> int:
    """Convert the time of an option, in a form that `parse_times` reads, to whole seconds since 1970 or a position.

    Raises:
        LorarecError: It cannot be read.

    Examples:
        >>> parse_moment("2024-05-01", "test_from")
        1714521600
    """
    try:
        return int(parse_times(pl.Series([text]), option).item())
    except LorarecError:
        raise LorarecError(
            f"option {option} must be a time, such as 2024-05-01, 2024-05-01 22:13:20 or seconds since 1970, or a "
            f"position, got {text!r}"
        ) from None


def moment_text(time: int) -> str:
    """Write whole seconds since 1970 as a date and a time in UTC; a position, or a time after 9999, as a number.

    Examples:
        >>> moment_text(1_714_521_600), moment_text(12)
        ('2024-05-01 00:00:00', '12')
    """
    if not EARLIEST_MOMENT <= time <= datetime.max.replace(tzinfo=UTC).timestamp():
        return str(time)
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")


def parse_times(
    times: pl.Series,
    where: str | Path,
    *,
    time_format: str | None = None,
    bad_times: BadTimes = "refuse",
    name_row: Callable[[int], str] = row_number,
) -> pl.Series:
    """Convert numbers, dates, datetimes or ISO 8601 text (UTC if it names no zone) to whole seconds since 1970.

    One unit is chosen for the whole column, the one that fits most of its numbers: seconds, milliseconds, microseconds
    or nanoseconds since 1970, dates written as digits (20231114), or positions, which stay unchanged. A time is bad if
    it is in another unit than most, or is a placeholder far from the others (0, 1970-01-01, a negative number, the year
    9999, 2147483647).

    Args:
        times: A column of numbers, dates, datetimes or text.
        where: The name of the file, for error messages.
        time_format: The `datetime.strptime` format of text that is not ISO 8601.
        bad_times: See `TableFormat`.
        name_row: Function from the number of a row, from 0, to its name in error messages ("line 7").

    Returns:
        Int64 seconds (or positions), null for the times that are dropped.

    Raises:
        LorarecError: A time is missing, cannot be read or is bad; the message names its row and value.
    """
    if times.dtype.base_type() not in (pl.Date, pl.Datetime, pl.String, pl.Categorical, pl.Enum) and not (
        times.dtype.is_numeric() or times.dtype == pl.Null
    ):
        raise LorarecError(f"{where}: column {TIME} has type {times.dtype}, which is not a time: {_READ}")
    seconds, far, unit = _seconds(times, time_format, where, name_row)
    unread = seconds.is_null()
    if unread.any() and (bad_times != "drop" or unread.all()):
        _refuse_unread(unread, times, time_format, where, name_row)
    # If no unit has a majority, it is unknown which times are the bad ones.
    if far.any() and (bad_times == "refuse" or far.sum() * 2 >= seconds.count()):
        _refuse_far(far, times, unit, where, name_row)
    return (seconds.zip_with(~far, pl.Series([None], dtype=pl.Int64)) if bad_times == "drop" else seconds).alias(TIME)


def within_seconds(times: pl.Series, time_format: str | None = None) -> pl.Series | None:
    """Return numbers that order times of the same second, for a column that `parse_times` reads.

    Returns:
        The numbers; None for times in whole seconds, and for rows that are in the order of the numbers already.

    Examples:
        >>> within_seconds(pl.Series(["2024-05-01 10:00:00.75", "2024-05-01 10:00:00.5"])).to_list()
        [750000000, 500000000]
        >>> within_seconds(pl.Series([1714557600, 1714557600]))
    """
    numbers = _parts_of_seconds(times, time_format)
    return None if numbers is None or numbers.is_sorted() else numbers


def _parts_of_seconds(times: pl.Series, time_format: str | None) -> pl.Series | None:
    if times.dtype.base_type() == pl.Datetime:
        return times.dt.nanosecond()
    if times.dtype.is_numeric() and time_format is None:
        whole = times.dtype.is_integer() and not (times.cast(pl.Int128) > _UNITS[0][2]).any()
        return None if whole else times
    if times.dtype.base_type() not in (pl.String, pl.Categorical, pl.Enum):
        return None
    text = times.cast(pl.String)
    if time_format is not None:
        return _by_format(text, time_format).dt.nanosecond() if "f" in time_format else None
    text = without_missing(text)
    for dtype in (pl.Int64, pl.Float64):
        numbers = text.str.replace(r"^(-?\d+),(\d+)$", "${1}.$2").cast(dtype, strict=False)
        if numbers.null_count() == text.null_count():
            return _parts_of_seconds(numbers, None)
    digits = text.str.extract(r":\d\d[.,](\d+)").str.pad_end(9, "0").str.head(9)
    return digits.cast(pl.Int64).fill_null(0)


def _seconds(
    times: pl.Series, time_format: str | None, where: str | Path, name_row: Callable[[int], str]
) -> tuple[pl.Series, pl.Series, str]:
    """Return seconds (null where a time cannot be read), whether each is far from the others, and the unit in words."""
    if times.dtype.base_type() in (pl.Date, pl.Datetime):
        return _calendar(_epoch(times), "dates")
    if times.dtype.is_numeric() and time_format is None:
        return _from_numbers(_whole(times, times, where, name_row))
    text = times.cast(pl.String)
    if time_format is not None:
        return _calendar(_epoch(_by_format(without_missing(text), time_format)), f"times with the format {time_format}")
    numbers = text.cast(pl.Int64, strict=False)
    if not numbers.null_count():
        return _from_numbers(numbers)
    text = without_missing(text)
    numbers = text.cast(pl.Int64, strict=False)
    if numbers.null_count() > text.null_count():
        floats = text.str.replace(r"^(-?\d+),(\d+)$", "${1}.$2").cast(pl.Float64, strict=False)
        rounded = _whole(floats, times, where, name_row)
        numbers = numbers.zip_with(numbers.is_not_null(), rounded)
    is_number = numbers.is_not_null()
    if numbers.null_count() == text.null_count():
        return _from_numbers(numbers)
    dates, far_dates, words = _calendar(_iso_seconds(text), "dates")
    if not is_number.any():
        return dates, far_dates, words
    seconds, far, unit = _from_numbers(numbers)
    # The column mixes numbers and dates: those that are in the minority are treated like times in another unit.
    as_numbers = is_number.sum() * 2 > len(text) - text.null_count()
    far = (far | dates.is_not_null()) if as_numbers else (far_dates | is_number)
    return seconds.zip_with(is_number, dates), far, unit if as_numbers else words


def _whole(values: pl.Series, times: pl.Series, where: str | Path, name_row: Callable[[int], str]) -> pl.Series:
    """Truncate numbers to whole ones; only times in seconds or finer units may have fractions.

    Raises:
        LorarecError: A small number has a fraction, or a large one is a 32-bit floating point number: the order of
            positions, days or seconds would be lost by rounding.
    """
    numbers = values.cast(pl.Int64, strict=False)
    if values.dtype == pl.Float32 and (rounded := (values.abs() > _EXACT_FLOAT32).fill_null(False)).any():
        raise LorarecError(
            f"{where}: {name_row(int(rounded.arg_max() or 0))} has a {TIME} of type {values.dtype}, which rounds such "
            "times to minutes: write the column again from its source, as integers or Float64"
        )
    if not (values.dtype.is_float() or values.dtype.is_decimal()):
        return numbers
    cut = ((values.abs() < EARLIEST_MOMENT) & (values != numbers)).fill_null(False)
    if cut.any():
        row = int(cut.arg_max() or 0)
        raise LorarecError(
            f"{where}: {name_row(row)} has {TIME} {times[row]!r}: a small number with a fraction is neither seconds "
            "since 1970 nor a position: convert the column to one of them (days of a spreadsheet to dates)"
        )
    return numbers


def _by_format(text: pl.Series, form: str) -> pl.Series:
    if "%Z" in form:
        raise LorarecError(
            f"time_format {form!r}: names of time zones are not supported: use %z, or write UTC in place of %Z"
        )
    if not re.search("%[-_0]?[YyCGgDFcsx+v]", form):
        raise LorarecError(
            f"time_format {form!r} has no year, so times cannot be ordered: name a column of full dates, or use the "
            'order of the rows with order="file"'
        )
    try:
        with warnings.catch_warnings():
            # Python's %f is a fraction of any length; here that is %.f after a point, and %f are nanoseconds, which are
            # right as well where seconds are all that is wanted.
            warnings.simplefilter("ignore", pl.exceptions.ChronoFormatWarning)
            parsed = text.str.to_datetime(form.replace(".%f", "%.f"), strict=False, time_unit="us")
    except pl.exceptions.PolarsError as error:
        raise LorarecError(f"time_format {form!r} cannot be used: {str(error).splitlines()[0]}") from None
    return parsed


def _epoch(datetimes: pl.Series) -> pl.Series:
    return datetimes.dt.epoch("s").cast(pl.Int64)


def _iso_seconds(text: pl.Series) -> pl.Series:
    value = pl.col("text").str.replace(r"^(\d{4})/(\d{1,2})/(\d{1,2})", "$1-$2-$3")
    value = value.str.replace(r"^(\d{8}|\d{4}-\d{1,2}-\d{1,2})[Tt ]+", "$1 ")
    value = value.str.replace(r"(?i)\s*(?:z|utc|gmt|\+0000 utc)$", "+0000")
    value = value.str.replace(r":(\d\d),(\d+)", ":$1.$2")
    value = value.str.replace(r"(:\d\d(?:\.\d+)?|\d{6})\s*([+-]\d\d)(?::?(\d\d))?$", "${1}${2}:${3}")
    value = value.str.replace(r"([+-]\d\d):$", "${1}:00")
    # It is unknown which part of 05-11-14 is the year, so years must have four digits.
    has_full_year = pl.col("text").str.contains(r"^\d{4}")
    frame = pl.DataFrame({"text": text}).select(pl.when(has_full_year).then(value).alias("text"))
    forms = [pl.col("text").str.to_datetime(form, strict=False, time_unit="us").dt.epoch("s") for form in _ISO_FORMS]
    return frame.select(pl.coalesce(each.cast(pl.Int64) for each in forms)).to_series()


def _calendar(seconds: pl.Series, words: str) -> tuple[pl.Series, pl.Series, str]:
    """Return dates and datetimes with whether each is a placeholder, such as 1970-01-01, unlike most others."""
    middle = seconds.median()
    if not isinstance(middle, float):  # all are null
        return seconds, pl.repeat(False, len(seconds), eager=True), words
    far = pl.repeat(False, len(seconds), eager=True)
    if middle < LATEST_TIME:
        far |= seconds >= LATEST_TIME
    if middle >= EARLIEST_TIME:
        far |= seconds < EARLIEST_TIME
    if abs(middle) > 366 * _DAY:
        far |= seconds.abs() <= _DAY
    return seconds, far.fill_null(False), words


def _from_numbers(numbers: pl.Series) -> tuple[pl.Series, pl.Series, str]:
    """Return seconds or positions from integers, by the unit of most of them; otherwise as `_seconds`."""
    least, most = numbers.min(), numbers.max()
    none = pl.repeat(False, len(numbers), eager=True)
    if not isinstance(least, int) or not isinstance(most, int):
        return numbers, none, "numbers"
    for form, first, last in _DIGITS:
        if most < first or least > last or numbers.is_between(first, last).sum() * 2 <= numbers.count():
            continue
        if (parsed := _digits(numbers, form)) is not None:
            return _calendar(parsed, "dates")
    if least >= 0 and most < EARLIEST_MOMENT:
        return numbers, none, "positions"
    counts = {each[0]: int(numbers.is_between(*each[1:3]).sum()) for each in _UNITS}
    counts["positions"] = int(numbers.is_between(-EARLIEST_MOMENT, EARLIEST_MOMENT, closed="none").sum())
    unit = max(counts, key=lambda name: counts[name])
    if unit == "positions":
        # Positions in a large log may exceed what otherwise counts as a small number.
        far = none if most <= 10 * len(numbers) else numbers >= EARLIEST_MOMENT
        if (numbers < 0).sum() * 2 < len(numbers):
            far |= numbers < 0
        return numbers, far.fill_null(False), unit
    first, last, per_second = next(each[1:] for each in _UNITS if each[0] == unit)
    seconds = numbers // per_second
    far = ~numbers.is_between(first, last) | (seconds == _LARGEST_INT32)
    if most // per_second >= LATEST_TIME:
        middle = seconds.median()
        if isinstance(middle, float) and middle < LATEST_TIME:
            far |= seconds >= LATEST_TIME
    return seconds, far.fill_null(False), unit


def _digits(numbers: pl.Series, form: str) -> pl.Series | None:
    """Return the seconds of dates written as digits; None if most of the numbers are not dates."""
    parsed = _epoch(numbers.cast(pl.String).str.to_datetime(form, strict=False, time_unit="us"))
    return parsed if parsed.count() * 2 > numbers.count() else None


def _refuse_unread(
    unread: pl.Series, times: pl.Series, form: str | None, where: str | Path, name_row: Callable[[int], str]
) -> None:
    if times.null_count() == len(times):
        raise LorarecError(
            f'{where}: no row has a {TIME}: name a column of times or positions with time="...", or use the order of '
            'the rows with order="file"'
        )
    row = int(unread.arg_max() or 0)
    value, others = times[row], int(unread.sum()) - 1
    missing = value is None or (isinstance(value, str) and without_missing(pl.Series([value])).is_null().item())
    more = more_rows(others)
    if missing:
        raise LorarecError(
            f"{where}: {name_row(row)} has no {TIME}{more}: fix or remove the row, drop all such rows with "
            'bad_times="drop", or use the order of the rows instead of times with order="file"'
        )
    wanted = f"it does not have the format {form!r}" if form else _READ
    drop = "" if unread.all() else ', or drop all such rows with bad_times="drop"'
    raise LorarecError(
        f"{where}: {name_row(row)} has {TIME} {value!r}, which cannot be read{more}: fix or remove the row{drop}; "
        f"{wanted}"
    )


def _refuse_far(far: pl.Series, times: pl.Series, unit: str, where: str | Path, name_row: Callable[[int], str]) -> None:
    rows = far.arg_true().to_list()
    value = times[rows[0]]
    text = repr(value) if isinstance(value, str | int | float) else str(value)
    message = f"{where}: {name_row(rows[0])} has {TIME} {text}"
    if far.all():
        raise LorarecError(f"{message}, which like all others is in no supported unit: {_READ}")
    named = ", ".join([*(name_row(row) for row in rows[1 : 1 + _NAMED]), *(["..."] if len(rows) > 1 + _NAMED else [])])
    more = more_rows(len(rows) - 1, named)
    if len(rows) * 2 >= times.count():
        raise LorarecError(
            f"{message}, which is not in {unit}{more}; no unit fits most of the times: convert all to the same unit"
        )
    raise LorarecError(
        f"{message}, far from the others, most of which are {unit}{more}: fix or remove the row, drop all such rows "
        'with bad_times="drop", or keep these times as they are with bad_times="keep"'
    )
