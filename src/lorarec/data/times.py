"""From the times of a log, in whatever unit or form, to whole seconds."""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from lorarec.data.columns import TIME
from lorarec.data.missing import without_missing
from lorarec.data.tables import BadTimes, row_number
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
_SMALL = 10**8
#: Dates and moments whose digits are written as one number: their form, the first and the last such number.
_DIGITS = (
    ("%Y%m%d", 19000101, 21001231),
    ("%Y%m%d%H%M", 190001010000, 210012312359),
    ("%Y%m%d%H%M%S", 19000101000000, 21001231235959),
)
#: What no interaction lies beyond, in seconds: 1901, and 2050. Between them, the largest 32-bit number is no moment.
_EARLIEST, _LATEST, _LARGEST_INT32 = -2_177_452_800, 2_524_608_000, 2**31 - 1
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
    "times are read as numbers of seconds, milliseconds, microseconds or nanoseconds since 1970, as positions (0, 1, "
    "2), as 20231114, 2023-11-14, 2023-11-14 22:13:20, 2023-11-14T22:13:20.5Z, 2023-11-14 22:13:20 UTC or "
    '2023-11-14T22:13:20+01:00, and in other forms by time_format="%d.%m.%Y" (14.11.2023) or '
    'time_format="%m/%d/%Y" (11/14/2023)'
)
_NAMED = 3


def parse_times(
    times: pl.Series,
    where: str | Path,
    *,
    time_format: str | None = None,
    bad_times: BadTimes = "refuse",
    place: Callable[[int], str] = row_number,
) -> pl.Series:
    """Whole seconds from numbers, dates and moments, or text of ISO 8601 (UTC if it names no zone).

    What numbers count is told for the whole column by most of them: seconds, milliseconds, microseconds or nanoseconds
    since 1970, the digits of dates (20231114), or positions, which pass unchanged. Times in another unit than most, or
    that no interaction has where the others lie (0, 1970-01-01, negative numbers, the year 9999, 2147483647), are bad.

    Args:
        times: of any type.
        where: the file, for messages.
        time_format: the form of text in another one than ISO 8601.
        bad_times: see `TableOptions`.
        place: from the number of a row to words for its place, for messages.

    Returns:
        Seconds, null where times are dropped.

    Raises:
        LorarecError: a time is missing, cannot be read or is bad; its row and value are named.
    """
    if times.dtype.base_type() not in (pl.Date, pl.Datetime, pl.String, pl.Categorical, pl.Enum) and not (
        times.dtype.is_numeric() or times.dtype == pl.Null
    ):
        raise LorarecError(f"{where}: column {TIME} is of type {times.dtype}, which is no time: {_READ}")
    seconds, far, unit = _seconds(times, time_format, where, place)
    unread = seconds.is_null()
    if unread.any() and (bad_times != "drop" or unread.all()):
        _refuse_unread(unread, times, time_format, where, place)
    # Where there is no most of them, nothing says which ones are bad.
    if far.any() and (bad_times == "refuse" or far.sum() * 2 >= seconds.count()):
        _refuse_far(far, times, unit, where, place)
    return (seconds.zip_with(~far, pl.Series([None], dtype=pl.Int64)) if bad_times == "drop" else seconds).alias(TIME)


def _seconds(
    times: pl.Series, time_format: str | None, where: str | Path, place: Callable[[int], str]
) -> tuple[pl.Series, pl.Series, str]:
    """Seconds (null where a time cannot be read), whether each is far from the others, and what was read."""
    if times.dtype.base_type() in (pl.Date, pl.Datetime):
        return _calendar(times.dt.epoch("s").cast(pl.Int64), "dates")
    if times.dtype.is_numeric() and time_format is None:
        return _from_numbers(_whole(times, times, where, place))
    text = times.cast(pl.String)
    if time_format is not None:
        return _calendar(_by_format(without_missing(text), time_format), f"times of the form {time_format}")
    numbers = text.cast(pl.Int64, strict=False)
    if not numbers.null_count():
        return _from_numbers(numbers)
    text = without_missing(text)
    numbers = text.cast(pl.Int64, strict=False)
    if numbers.null_count() > text.null_count():
        floats = text.str.replace(r"^(-?\d+),(\d+)$", "${1}.$2").cast(pl.Float64, strict=False)
        rounded = _whole(floats, times, where, place)
        numbers = numbers.zip_with(numbers.is_not_null(), rounded)
    is_number = numbers.is_not_null()
    if numbers.null_count() == text.null_count():
        return _from_numbers(numbers)
    dates, far_dates, words = _calendar(_iso_seconds(text), "dates")
    if not is_number.any():
        return dates, far_dates, words
    seconds, far, unit = _from_numbers(numbers)
    # One of the two forms is the column's own; times of the other are as suspect as those of another unit.
    as_numbers = is_number.sum() * 2 > len(text) - text.null_count()
    far = (far | dates.is_not_null()) if as_numbers else (far_dates | is_number)
    return seconds.zip_with(is_number, dates), far, unit if as_numbers else words


def _whole(values: pl.Series, times: pl.Series, where: str | Path, place: Callable[[int], str]) -> pl.Series:
    """Numbers without their fractions, which only seconds may have.

    Raises:
        LorarecError: small numbers have fractions, or large ones are 32-bit floating point numbers: positions, days and
            seconds that were rounded would no longer tell what came first.
    """
    numbers = values.cast(pl.Int64, strict=False)
    if values.dtype == pl.Float32 and (rounded := (values.abs() > _EXACT_FLOAT32).fill_null(False)).any():
        raise LorarecError(
            f"{where}: {place(int(rounded.arg_max() or 0))} has a {TIME} of type {values.dtype}, which rounds such "
            "times to minutes: write the column again from its source as whole numbers or as Float64"
        )
    if not (values.dtype.is_float() or values.dtype.is_decimal()):
        return numbers
    cut = ((values.abs() < _SMALL) & (values != numbers)).fill_null(False)
    if cut.any():
        row = int(cut.arg_max() or 0)
        raise LorarecError(
            f"{where}: {place(row)} has {TIME} {times[row]!r}: a small number with a fraction is neither seconds since "
            "1970 nor a position: convert the column (days of a spreadsheet: to dates)"
        )
    return numbers


def _by_format(text: pl.Series, form: str) -> pl.Series:
    if "%Z" in form:
        raise LorarecError(f"time_format {form!r}: names of zones are not read: use %z, or write UTC itself into it")
    try:
        # What Python calls %f is a fraction of any length, which has the point in its name here.
        found = text.str.to_datetime(form.replace(".%f", "%.f"), strict=False, time_unit="us")
    except pl.exceptions.PolarsError as error:
        raise LorarecError(f"time_format {form!r} cannot be used: {str(error).splitlines()[0]}") from None
    return found.dt.epoch("s").cast(pl.Int64)


def _iso_seconds(text: pl.Series) -> pl.Series:
    value = pl.col("text").str.replace(r"^(\d{4})/(\d{1,2})/(\d{1,2})", "$1-$2-$3")
    value = value.str.replace(r"^(\d{8}|\d{4}-\d{1,2}-\d{1,2})[Tt ]+", "$1 ")
    value = value.str.replace(r"(?i)\s*(?:z|utc|gmt|\+0000 utc)$", "+0000")
    value = value.str.replace(r":(\d\d),(\d+)", ":$1.$2")
    value = value.str.replace(r"(:\d\d(?:\.\d+)?|\d{6})\s*([+-]\d\d)(?::?(\d\d))?$", "${1}${2}:${3}")
    value = value.str.replace(r"([+-]\d\d):$", "${1}:00")
    frame = pl.DataFrame({"text": text}).select(value.alias("text"))
    forms = [pl.col("text").str.to_datetime(form, strict=False, time_unit="us").dt.epoch("s") for form in _ISO_FORMS]
    return frame.select(pl.coalesce(each.cast(pl.Int64) for each in forms)).to_series()


def _calendar(seconds: pl.Series, words: str) -> tuple[pl.Series, pl.Series, str]:
    """Dates and moments: far are those that stand for no date where most of the others lie elsewhere."""
    middle = seconds.median()
    if not isinstance(middle, float):  # none could be read
        return seconds, pl.repeat(False, len(seconds), eager=True), words
    far = pl.repeat(False, len(seconds), eager=True)
    if middle < _LATEST:
        far |= seconds >= _LATEST
    if middle >= _EARLIEST:
        far |= seconds < _EARLIEST
    if abs(middle) > 366 * _DAY:
        far |= seconds.abs() <= _DAY
    return seconds, far.fill_null(False), words


def _from_numbers(numbers: pl.Series) -> tuple[pl.Series, pl.Series, str]:
    """Seconds or positions from whole numbers, by the unit of most of them."""
    least, most = numbers.min(), numbers.max()
    none = pl.repeat(False, len(numbers), eager=True)
    if not isinstance(least, int) or not isinstance(most, int):
        return numbers, none, "numbers"
    for form, first, last in _DIGITS:
        if most < first or least > last or numbers.is_between(first, last).sum() * 2 <= numbers.count():
            continue
        if (found := _digits(numbers, form)) is not None:
            return _calendar(found, "dates")
    if least >= 0 and most < _SMALL:
        return numbers, none, "positions"
    counts = {each[0]: int(numbers.is_between(*each[1:3]).sum()) for each in _UNITS}
    counts["positions"] = int(numbers.is_between(-_SMALL, _SMALL, closed="none").sum())
    unit = max(counts, key=lambda name: counts[name])
    if unit == "positions":
        # The rows of a large log may be numbered beyond what is small otherwise.
        far = none if most <= 10 * len(numbers) else numbers >= _SMALL
        if (numbers < 0).sum() * 2 < len(numbers):
            far |= numbers < 0
        return numbers, far.fill_null(False), unit
    first, last, per_second = next(each[1:] for each in _UNITS if each[0] == unit)
    seconds = numbers // per_second
    far = ~numbers.is_between(first, last) | (seconds == _LARGEST_INT32)
    if most // per_second >= _LATEST:
        middle = seconds.median()
        if isinstance(middle, float) and middle < _LATEST:
            far |= seconds >= _LATEST
    return seconds, far.fill_null(False), unit


def _digits(numbers: pl.Series, form: str) -> pl.Series | None:
    """Seconds of dates written as numbers; None where most of the numbers are no dates."""
    found = numbers.cast(pl.String).str.to_datetime(form, strict=False, time_unit="us").dt.epoch("s").cast(pl.Int64)
    return found if found.count() * 2 > numbers.count() else None


def _refuse_unread(
    unread: pl.Series, times: pl.Series, form: str | None, where: str | Path, place: Callable[[int], str]
) -> None:
    row = int(unread.arg_max() or 0)
    value, others = times[row], int(unread.sum()) - 1
    missing = value is None or (isinstance(value, str) and without_missing(pl.Series([value])).is_null().item())
    more = f" (and {others} more rows)" if others else ""
    if missing:
        raise LorarecError(
            f'{where}: {place(row)} has no {TIME}{more}: mend or remove it, leave such rows out by bad_times="drop", '
            'or take the order of the rows by order="file"'
        )
    wanted = f"it is not of the form {form!r}" if form else _READ
    raise LorarecError(
        f"{where}: {place(row)} has {TIME} {value!r}, which cannot be read{more}: mend or remove it; {wanted}"
    )


def _refuse_far(far: pl.Series, times: pl.Series, unit: str, where: str | Path, place: Callable[[int], str]) -> None:
    rows = far.arg_true().to_list()
    value = times[rows[0]]
    shown = repr(value) if isinstance(value, str | int | float) else str(value)
    found = f"{where}: {place(rows[0])} has {TIME} {shown}"
    if far.all():
        raise LorarecError(f"{found}, as all times lies in no unit that is read: {_READ}")
    named = ", ".join([*(place(row) for row in rows[1 : 1 + _NAMED]), *(["..."] if len(rows) > 1 + _NAMED else [])])
    more = f" (and {len(rows) - 1} more rows: {named})" if named else ""
    if len(rows) * 2 >= times.count():
        raise LorarecError(f"{found}, in another unit than {unit}{more}; no unit is that of most: write all in one")
    raise LorarecError(
        f"{found}, far from the others, most of which are {unit}{more}: mend or remove it, leave such rows out by "
        'bad_times="drop", or take them for what they say by bad_times="keep"'
    )
