"""Times of any unit and form: the same moments are read back, and errors name values that are not times."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorarec.data.times import parse_times
from lorarec.errors import LorarecError

FIRST, LAST = 788_918_400, 2_145_916_799  # 1995 to 2037


def _text(form: str, zone: timezone = UTC) -> Callable[[int], str]:
    return lambda second: datetime.fromtimestamp(second, zone).strftime(form)


ZONE = timezone(timedelta(hours=5, minutes=30))
EXACT: dict[str, tuple[Callable[[int], object], str | None]] = {
    "seconds": (int, None),
    "milliseconds": (lambda second: second * 10**3 + 999, None),
    "microseconds": (lambda second: second * 10**6 + 5, None),
    "nanoseconds": (lambda second: second * 10**9 + 7, None),
    "float": (lambda second: second + 0.5, None),
    "text of seconds": (str, None),
    "text of milliseconds": (lambda second: f" {second}123 ", None),
    "text of floats": (lambda second: f"{second}.25", None),
    "decimal comma": (lambda second: f"{second},25", None),
    "ISO": (_text("%Y-%m-%dT%H:%M:%SZ"), None),
    "ISO lower case": (_text("%Y-%m-%dt%H:%M:%Sz"), None),
    "BigQuery": (_text("%Y-%m-%d %H:%M:%S UTC"), None),
    "BigQuery with fractions": (_text("%Y-%m-%d %H:%M:%S.123456 UTC"), None),
    "GMT": (_text("%Y-%m-%d %H:%M:%S GMT"), None),
    "Go": (_text("%Y-%m-%d %H:%M:%S.5 +0000 UTC"), None),
    "logging": (_text("%Y-%m-%d %H:%M:%S,250"), None),
    "slashes": (_text("%Y/%m/%d %H:%M:%S"), None),
    "basic": (_text("%Y%m%dT%H%M%SZ"), None),
    "digits": (lambda second: int(_text("%Y%m%d%H%M%S")(second)), None),
    "text of digits": (_text("%Y%m%d%H%M%S"), None),
    "offset": (lambda second: datetime.fromtimestamp(second, ZONE).isoformat(), None),
    "offset without colon": (_text("%Y-%m-%d %H:%M:%S%z", ZONE), None),
    "offset after a space": (_text("%Y-%m-%d %H:%M:%S.5 %z", ZONE), None),
    "offset of hours": (_text("%Y-%m-%d %H:%M:%S-03", timezone(-timedelta(hours=3))), None),
    "datetime": (lambda second: datetime.fromtimestamp(second, UTC).replace(tzinfo=None), None),
    "datetime with zone": (lambda second: datetime.fromtimestamp(second, UTC), None),
    "German": (_text("%d.%m.%Y %H:%M:%S"), "%d.%m.%Y %H:%M:%S"),
    "American": (_text("%m/%d/%Y %I:%M:%S %p"), "%m/%d/%Y %I:%M:%S %p"),
    "fractions by format": (_text("%d/%m/%Y %H:%M:%S.250"), "%d/%m/%Y %H:%M:%S.%f"),
    "fractions after a comma by format": (_text("%d/%m/%Y %H:%M:%S,25"), "%d/%m/%Y %H:%M:%S,%f"),
    "offset by format": (_text("%d %b %Y %H:%M:%S %z", ZONE), "%d %b %Y %H:%M:%S %z"),
    "RFC 2822": (_text("%a, %d %b %Y %H:%M:%S GMT"), "%a, %d %b %Y %H:%M:%S GMT"),
}
DAYS: dict[str, tuple[Callable[[int], object], str | None]] = {
    "number": (lambda second: int(_text("%Y%m%d")(second)), None),
    "text of a number": (_text("%Y%m%d"), None),
    "ISO date": (_text("%Y-%m-%d"), None),
    "slashes": (_text("%Y/%m/%d"), None),
    "date": (lambda second: datetime.fromtimestamp(second, UTC).date(), None),
    "German": (_text("%d.%m.%Y"), "%d.%m.%Y"),
    "American": (_text("%m/%d/%Y"), "%m/%d/%Y"),
    "number by format": (lambda second: int(_text("%d%m%Y")(second)) + 10**8, "1%d%m%Y"),
}


@pytest.mark.parametrize("form", EXACT)
@settings(max_examples=15)
@given(seconds=st.lists(st.integers(FIRST, LAST), min_size=1, max_size=8))
def test_moments_in_every_form_come_back(form: str, seconds: list[int]) -> None:
    write, time_format = EXACT[form]
    times = pl.Series("timestamp", [write(second) for second in seconds])
    assert parse_times(times, "log", time_format=time_format).to_list() == seconds


@pytest.mark.parametrize("form", DAYS)
@settings(max_examples=15)
@given(seconds=st.lists(st.integers(FIRST, LAST), min_size=1, max_size=8))
def test_days_in_every_form_come_back(form: str, seconds: list[int]) -> None:
    write, time_format = DAYS[form]
    times = pl.Series("timestamp", [write(second) for second in seconds])
    assert parse_times(times, "log", time_format=time_format).to_list() == [
        second // 86400 * 86400 for second in seconds
    ]


@settings(max_examples=50)
@given(positions=st.lists(st.integers(0, 10**7), min_size=1, max_size=8))
def test_positions_pass_unchanged(positions: list[int]) -> None:
    assert parse_times(pl.Series(positions), "log").to_list() == positions
    assert parse_times(pl.Series(list(map(str, positions))), "log").to_list() == positions


def test_digits_that_are_no_date_are_positions() -> None:
    assert parse_times(pl.Series([20231340, 20231350]), "log").to_list() == [20231340, 20231350]


MOMENT = 1_700_000_000
ISO = [f"2023-11-{day:02} 10:00:00" for day in range(1, 16)]


def _with(values: list[object], bad: list[object]) -> list[object]:
    """Insert bad values after the first five others."""
    return [*values[:5], *bad, *values[5:]]


FAR = [
    ([MOMENT + k for k in range(10)], [253_402_300_799]),  # the year 9999
    ([MOMENT + k for k in range(10)], [0]),
    ([MOMENT + k for k in range(10)], [-1]),
    ([MOMENT + k for k in range(10)], [-62_135_596_800, 0, 2**31 - 1]),
    ([MOMENT + k for k in range(10)], [MOMENT * 1000, MOMENT * 10**6]),
    ([MOMENT * 1000 + k for k in range(10)], [MOMENT, 253_402_300_799_000]),
    ([MOMENT * 10**6 + k for k in range(10)], [MOMENT * 1000]),
    ([MOMENT * 10**9 + k for k in range(10)], [MOMENT * 10**6, 0]),
    ([str(MOMENT + k) for k in range(10)], ["253402300799", "2023-11-14"]),
    ([float(MOMENT + k) for k in range(10)], [1e13, 5.0]),
    ([20231101 + k for k in range(10)], [99991231]),
    ([20231101 + k for k in range(10)], [19700101]),
    (ISO, ["9999-12-31", "1970-01-01 00:00:00"]),
    (ISO, ["0001-01-01", "1900-01-01"]),
    (ISO, [str(MOMENT)]),
    ([date(2023, 11, 1 + k) for k in range(10)], [date(9999, 12, 31), date(1970, 1, 1)]),
    ([datetime(2023, 11, 1 + k, tzinfo=UTC) for k in range(10)], [datetime(2999, 1, 1, tzinfo=UTC)]),
    (list(range(10)), [MOMENT]),
    (list(range(10)), [-1]),
]


@pytest.mark.parametrize(("values", "bad"), FAR, ids=str)
def test_times_far_from_most_are_named_dropped_or_kept(values: list[object], bad: list[object]) -> None:
    times = pl.Series("timestamp", _with(values, bad), strict=False)
    with pytest.raises(
        LorarecError, match=r"log: row 6 has timestamp .*far from the others, most of which are"
    ) as caught:
        parse_times(times, "log")
    assert str(bad[0])[:10] in str(caught.value)
    others = {1: "", 2: "(and 1 more row: row 7)"}.get(len(bad), f"(and {len(bad) - 1} more rows: row 7")
    assert others in str(caught.value)
    assert 'bad_times="drop"' in str(caught.value)
    separate = parse_times(pl.Series("timestamp", values), "log").to_list()
    dropped = parse_times(times, "log", bad_times="drop").to_list()
    assert dropped == _with(separate, [None] * len(bad))
    with_bad_times = parse_times(times, "log", bad_times="keep").to_list()
    assert None not in with_bad_times
    assert with_bad_times[:5] + with_bad_times[5 + len(bad) :] == separate


def test_one_far_time_does_not_change_the_unit_of_the_others() -> None:
    seconds = [MOMENT + 60 * k for k in range(1000)]
    times = pl.Series([*seconds, 253_402_300_799])
    assert parse_times(times, "log", bad_times="drop").to_list() == [*seconds, None]


@pytest.mark.parametrize("bad_times", ["refuse", "drop", "keep"])
def test_units_of_which_none_is_that_of_most(bad_times: str) -> None:
    times = pl.Series("timestamp", [MOMENT, MOMENT * 1000, MOMENT + 1, MOMENT * 1000 + 1])
    with pytest.raises(LorarecError, match=r"row 2 has timestamp 1700000000000, which is not in seconds .*row 4"):
        parse_times(times, "log", bad_times=bad_times)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [
        [-86400 * 365 * 20, -86400 * 365 * 10, 86400 * 365, MOMENT],  # old films, as dates
        [4_200_000_000, 4_300_000_000],  # shifted into 2103
        ["1970-01-01", "1970-01-02"],
    ],
)
def test_logs_all_of_whose_times_are_unusual_are_read(values: list[object]) -> None:
    dates = [datetime(1970, 1, 1) + timedelta(seconds=v) if isinstance(v, int) else v for v in values]
    assert parse_times(pl.Series(dates if values[0] != 4_200_000_000 else values), "log").null_count() == 0


def test_rows_of_a_large_log_are_positions() -> None:
    times = pl.Series("timestamp", [99_999_998 + k for k in range(4)])
    with pytest.raises(LorarecError):
        parse_times(times, "log")
    long = pl.select(pl.int_range(90_000_000, 90_000_000 + 11_000_000, 1).alias("timestamp")).to_series()
    assert parse_times(long, "log").equals(long)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (["14.11.2023"], {}, r"row 1 has timestamp '14.11.2023', which cannot be read: .*time_format=\"%d.%m.%Y\""),
        (
            ["11/14/2023"],
            {},
            r"'11/14/2023', which cannot be read.*20231114, 2023-11-14, .*\"%m/%d/%Y\" \(11/14/2023\)",
        ),
        (["14.11.2023", "31.02.2023"], {"time_format": "%d.%m.%Y"}, "row 2 has .*not have the format '%d.%m.%Y'"),
        (["05-11-14", "06-10-14"], {}, r"row 1 has timestamp '05-11-14', which cannot be read \(and 1 more row\)"),
        (["5/11/14"], {}, "row 1 has timestamp '5/11/14', which cannot be read"),
        (["14.11.2023"], {"time_format": "%d.%m.%Y %H"}, "time_format .* cannot be used"),
        (["14.11.2023 10:00 CET"], {"time_format": "%d.%m.%Y %H:%M %Z"}, "names of time zones are not supported"),
        ([20231114, 20231341, 20231115], {}, "row 2 has timestamp 20231341, which cannot be read"),
        (["NA", "5"], {}, "row 1 has no timestamp"),
        ([None, 5, None], {}, r"row 1 has no timestamp \(and 1 more row\).*order=\"file\""),
        ([None, None], {}, r"no row has a timestamp: name a column .* with time=\"...\", .*order=\"file\""),
        (["null", "nan"], {"bad_times": "drop"}, "row 1 has no timestamp"),
        ([45244.93, 45245.5], {}, "row 1 has timestamp 45244.93: a small number with a fraction"),
        (["1.5", "2"], {}, "row 1 has timestamp '1.5': a small number with a fraction"),
        ([Decimal("1"), Decimal("1.5")], {}, r"row 2 has timestamp Decimal\('1.5'\): a small number with a fraction"),
        ([638_355_968_000_000_000 + k for k in range(3)], {}, "like all others is in no supported unit"),  # .NET
        ([133_444_736_000_000_000 + k for k in range(3)], {}, "like all others is in no supported unit"),  # Windows
        ([5 * 10**10], {}, "like all others is in no supported unit"),
        ([True], {}, "has type Boolean, which is not a time"),
        ([timedelta(1)], {}, "has type Duration"),
        ([[1]], {}, "has type List"),
        ([b"1"], {}, "has type Binary"),
    ],
)
def test_unreadable_times_are_refused_in_one_line(values: list[object], options: dict[str, str], message: str) -> None:
    with pytest.raises(LorarecError, match=message) as caught:
        parse_times(pl.Series("timestamp", values), "log", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_seconds_of_32_bits_floating_point_are_refused() -> None:
    times = pl.Series("timestamp", [MOMENT, MOMENT + 1], dtype=pl.Float32)
    with pytest.raises(LorarecError, match="row 1 has a timestamp of type Float32, which rounds such times to minutes"):
        parse_times(times, "log")
    assert parse_times(pl.Series([0.0, 1.0, 2.0], dtype=pl.Float32), "log").to_list() == [0, 1, 2]


def test_places_of_rows_are_those_of_the_file() -> None:
    with pytest.raises(LorarecError, match="log: line 12 has timestamp 'x'"):
        parse_times(pl.Series("timestamp", ["1", "x"]), "log", name_row=lambda row: f"line {row + 11}")


def test_unread_and_far_times_are_dropped_alike() -> None:
    times = pl.Series([str(MOMENT), "soon", None, "NaN", str(MOMENT + 1), "0", str(MOMENT + 2)])
    assert parse_times(times, "log", bad_times="drop").to_list() == [
        MOMENT,
        None,
        None,
        None,
        MOMENT + 1,
        None,
        MOMENT + 2,
    ]


@pytest.mark.parametrize("form", ["%H:%M", "%m-%d", "%d. %B", "nonsense"])
def test_formats_without_a_year_are_refused(form: str) -> None:
    with pytest.raises(LorarecError, match="has no year"):
        parse_times(pl.Series(["11-14"]), "log", time_format=form)


def test_a_time_that_cannot_be_read_names_the_option_that_drops_it() -> None:
    times = pl.Series(["2023-11-14", "0000-00-00 00:00:00"])
    with pytest.raises(LorarecError, match=r'row 2 .*drop all such rows with bad_times="drop"'):
        parse_times(times, "log")
    assert parse_times(times, "log", bad_times="drop").null_count() == 1
