"""Delimited text: written tables are read back, and errors name the line."""

import gzip
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorarec.data import delimited
from lorarec.data.tables import Quote, TableFormat, open_table
from lorarec.errors import LorarecError

QUOTES = {"double": '"', "single": "'"}
SEPARATORS = [",", ";", "\t", "|", " ", "::", "||", "\u00a6", "<>"]
CHARACTERS = st.characters(exclude_characters="\0\r\x1f\ufeff", exclude_categories=("Cs",))


def _read(path: Path, **options: object) -> pl.DataFrame:
    table = open_table(path, TableFormat(**options))  # type: ignore[arg-type]
    frame = table.read({name: name for name in table.names})[0]
    return frame.select(pl.when(pl.all() != "").then(pl.all()))


def _write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    return path


@settings(max_examples=150)
@given(
    rows=st.lists(st.lists(st.text(CHARACTERS, max_size=8), min_size=3, max_size=3), min_size=1, max_size=6),
    separator=st.sampled_from(SEPARATORS),
    quote=st.sampled_from(["double", "single"]),
    always=st.booleans(),
    blank=st.integers(0, 6),
    end=st.sampled_from(["", "\n", "\n\n"]),
)
def test_quoted_tables_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str]],
    separator: str,
    quote: Quote,
    always: bool,
    blank: int,
    end: str,
) -> None:
    mark = QUOTES[quote]

    def field(value: str) -> str:
        special = any(part in value for part in (separator, separator[0], mark, "\n"))
        return mark + value.replace(mark, 2 * mark) + mark if always or special else value

    lines = [separator.join(field(value) for value in row) for row in rows]
    lines.insert(min(blank, len(lines)), "")
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    _write(path, [separator.join("abc"), *lines, end])
    read = _read(path, separator=separator, quote=quote)
    assert read.rows() == [tuple(value or None for value in row) for row in rows]


@settings(max_examples=100)
@given(
    rows=st.lists(st.lists(st.text(CHARACTERS, max_size=8), min_size=3, max_size=3), min_size=1, max_size=6),
    separator=st.sampled_from(SEPARATORS),
    blank=st.integers(0, 6),
)
def test_tables_without_quoting_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], separator: str, blank: int
) -> None:
    rows = [["".join(part for part in value if part not in separator + "\n") for value in row] for row in rows]
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    lines = [separator.join(row) for row in rows]
    lines.insert(min(blank, len(lines)), "")
    _write(path, [separator.join("abc"), *lines])
    read = _read(path, separator=separator, quote="none")
    assert read.rows() == [tuple(value or None for value in row) for row in rows]


@pytest.mark.parametrize("name", ["items.tsv", "items.tsv.gz"])
@pytest.mark.parametrize(
    "titles",
    [
        ["Aladdin Sane", '"Heroes', "Low", "Lodger", 'Best of 12"', "Hunky Dory"],
        ['"Weird Al" Yankovic', "Low", "Lodger"],
        ['7" Singles', '12" Mixes', "Low"],
        ['"', '""', '"""', '""""'],
        ["'Til Tuesday", "Rock 'n' Roll", '"Quoted"'],
        ['say "hi', 'and "bye', "x"],
    ],
    ids=str,
)
def test_quotes_in_tab_separated_text_are_characters(tmp_path: Path, name: str, titles: list[str]) -> None:
    text = "\n".join(["item_id\ttitle", *(f"{number}\t{title}" for number, title in enumerate(titles))])
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    assert _read(tmp_path / name)["title"].to_list() == titles
    (tmp_path / "items.csv").write_text(text.replace("\t", ","))
    assert _read(tmp_path / "items.csv", quote="none")["title"].to_list() == titles


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["1,Low", '2,"Heroes', "3,Lodger", '4,Best of 12"', "5,x"],
            "line 3: a quoted field that opens here spans the lines up to 5",
        ),
        (["1,Low", '2,"Heroes', "3,Lodger"], "line 3: a quoted field that opens here is not closed properly by line 4"),
        (["1,Low", '2,"Heroes', '3,"Lodger"', "4,x"], "line 3: a quoted field that opens here is not closed"),
        (
            ['1,"Weird Al" Yankovic', "2,Low"],
            "line 2: a quoted field is not closed or has text after",
        ),
        (["1,Low", '2,""Heroes""'], "line 3: a quoted field is not closed or has text after"),
        (['"1"" ""x",Low', '""2"",","'], "line 3: a quoted field is not closed or has text after"),
        (["1,Low", "", '2,"', "3,x", '4,"'], "line 4: a quoted field that opens here spans the lines up to 6"),
        (
            ['1,"two\nlines"', '2,"Heroes', '3,Best"'],
            "line 4: a quoted field that opens here spans the lines up to 5",
        ),
    ],
)
def test_fields_that_span_rows_are_named_by_the_line_where_they_open(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    path = _write(tmp_path / "items.csv", ["item_id,title", *lines])
    with pytest.raises(LorarecError, match=message) as caught:
        _read(path)
    assert 'quote="none"' in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fields_that_contain_lines_on_purpose(tmp_path: Path) -> None:
    plain = _write(tmp_path / "plain.csv", ["id,title,note", '1,A,"first\nsecond, third"', "2,B,", '3,C,"x"'])
    assert _read(plain).rows() == [("1", "A", "first\nsecond, third"), ("2", "B", None), ("3", "C", "x")]
    rows = _write(tmp_path / "rows.csv", ["id,title,note", '1,A,"first\n4,D,x\n"', "2,B,"])
    with pytest.raises(LorarecError, match=r"line 2: .*spans the lines up to 4"):
        _read(rows)
    assert _read(rows, quote="double")["note"].to_list() == ["first\n4,D,x\n", None]


@pytest.mark.parametrize("separator", [",", "\t", "::"])
@pytest.mark.parametrize(
    ("rows", "line", "fields"),
    [
        ([3, 2, 3], 3, 2),
        ([3, 3, 4], 4, 4),
        ([1], 2, 1),
        ([3, 0, 3, 2], 5, 2),  # a blank line counts as a line
        ([2, 4, 3], 2, 2),  # too short and too long do not make up for each other
        ([3, 3, 3, 1], 5, 1),
        ([3, 3, 7, 1], 4, 7),
    ],
)
def test_ragged_and_truncated_rows_name_their_line(
    tmp_path: Path, separator: str, rows: list[int], line: int, fields: int
) -> None:
    lines = [separator.join("abc"), *(separator.join("x" * count) for count in rows)]
    path = _write(tmp_path / "log.csv", lines)
    with pytest.raises(
        LorarecError, match=rf"log\.csv cannot be read as a table: line {line} has {fields} fields?, not 3"
    ):
        open_table(path, TableFormat(separator)).read({"a": "a"})  # the fault need not be in a wanted column


def test_quotes_within_fields_do_not_hide_that_a_row_is_too_long(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.csv", ["a,b", "1,2", 'x"y,z"x,3', "4,5"])
    with pytest.raises(LorarecError, match="line 3 has 3 fields, not 2"):
        open_table(path).read({"a": "a"})


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "text",
    ["a,b|1,2|3,4||", "a,b|1,2||3,4", "||a,b|1,2|3,4", "a,b|1,2|   |3,4|  |", '\ufeffa,b|"1",2|||3,4|', "a,b|1,2|3,4"],
)
def test_blank_lines_and_byte_order_marks_are_passed_over(tmp_path: Path, text: str, end: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(text.replace("|", end).encode())
    table = open_table(path)
    frame, place = table.read({"b": "b", "a": "a"})
    assert frame.rows() == [("2", "1"), ("4", "3")]
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    for row, first in enumerate("13"):
        number = int(place(row).removeprefix("line "))
        assert lines[number - 1].lstrip('"').startswith(first)


def test_without_a_header_the_first_line_is_a_row(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.csv", ["\ufeffann;7", "bob;8", ""])
    frame = _read(path, separator=";", header=False)
    assert frame.to_dict(as_series=False) == {"column_1": ["ann", "bob"], "column_2": ["7", "8"]}


def test_long_files_are_read_record_by_record_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_ROWS_AT_ONCE", 3)
    path = _write(tmp_path / "log.csv", ["a,b,c", *(f'{k},"x\ny",z' for k in range(10))])
    table = open_table(path)
    frame, place = table.read({"a": "a", "b": "b"})
    assert frame.rows() == [(str(k), "x\ny") for k in range(10)]
    assert [place(0), place(9)] == ["line 2", "line 20"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,x\n".encode("utf-16"), "is UTF-16 text"),
        ('a,b\n1,"x\ny"\n2,Mis\u00e9\n'.encode("latin-1"), "is not UTF-8 text"),
        ("Mis\u00e9,b\n1,2\n".encode("latin-1"), "is not UTF-8 text"),
        (b"\n\r\n", "is empty"),
        (b'a,"b\n1,2\n', "line 1: a quoted field is not closed"),
    ],
)
def test_damaged_text(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(LorarecError, match=message):
        _read(tmp_path / "log.csv")
