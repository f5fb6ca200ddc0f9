"""Delimited text (CSV, TSV and the like) in blocks: every row is checked against the header, faults name their line."""

import csv
import re
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import polars as pl

from lorarec.data.reading import line_blocks, table_errors
from lorarec.errors import LorarecError

#: Stands for separators of several bytes, which polars and the csv module do not take.
_ONE_BYTE = "\x1f"
_ROWS_AT_ONCE = 100_000
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Dialect:
    """How lines are divided into fields.

    Attributes:
        separator: what stands between fields, one character or several.
        quote: the character around quoted fields, doubled inside of them; None where quotes are ordinary characters.
        multiline: whether a quoted field may hold lines that look like rows of the table.
        header: whether the first line names the columns.
    """

    separator: str
    quote: str | None = None
    multiline: bool = False
    header: bool = True

    @property
    def one_byte(self) -> str:
        """The separator as the parsers see it."""
        return self.separator if len(self.separator.encode()) == 1 else _ONE_BYTE

    def with_one_byte(self, block: bytes, path: str | Path) -> bytes:
        """A block whose separators are single bytes.

        Raises:
            LorarecError: the text holds the byte that stands for the separator.
        """
        if self.one_byte == self.separator:
            return block
        if _ONE_BYTE.encode() in block:
            raise LorarecError(f"{path} holds the control character U+001F: remove it, or use another separator")
        return block.replace(self.separator.encode(), _ONE_BYTE.encode())


@dataclass
class LineNumbers:
    """The line of a file, counted from 1, on which each row of its table begins."""

    _first_rows: list[int] = field(default_factory=list)
    _lines: list[Sequence[int]] = field(default_factory=list)
    _rows: int = 0

    def append(self, lines: Sequence[int]) -> None:
        """Add the lines of further rows."""
        self._first_rows.append(self._rows)
        self._lines.append(lines)
        self._rows += len(lines)

    def __getitem__(self, row: int) -> int:
        """The line of a row, counted from 0."""
        part = bisect_right(self._first_rows, row) - 1
        return self._lines[part][row - self._first_rows[part]]


def column_names(path: Path, dialect: Dialect) -> list[str]:
    """The fields of the header, or column_1, column_2, ... where there is none.

    Raises:
        LorarecError: the file is empty or cannot be read.
    """
    _, line, _ = _first_line(_blocks(path), path)
    fields = _fields(line, dialect, path)
    return fields if dialect.header else [f"column_{number}" for number in range(1, len(fields) + 1)]


def read_delimited(
    path: Path, dialect: Dialect, width: int, columns: Sequence[int]
) -> tuple[pl.DataFrame, LineNumbers]:
    """Read columns as text; empty fields are null, blank lines are passed over.

    Blocks without surprises are left to polars. From the first one in which a quoted field holds a line end, or in
    which quotes are not balanced, Python's csv module reads record by record.

    Args:
        width: fields of a row.
        columns: places of the wanted columns in a row.

    Returns:
        Columns named by their places, and the line of each row.

    Raises:
        LorarecError: a row has more or fewer fields than `width`, a quoted field swallows rows or does not end, or the
            file is damaged. The line is named.
    """
    blocks = _blocks(path)
    number, line, rest = _first_line(blocks, path)
    if dialect.header:
        blocks = chain([(number + 1, rest)] if rest else [], blocks)
    else:
        blocks = chain([(number, b"\n".join([line, rest] if rest else [line]))], blocks)
    schema = {str(place): pl.String for place in range(width)}
    wanted = [str(place) for place in columns]
    frames, lines = [pl.DataFrame(schema=schema).select(wanted)], LineNumbers()
    for number, block in blocks:
        body = dialect.with_one_byte(block, path)
        with table_errors(path):
            plain = _plain_block(body, number, dialect, schema, wanted, path)
        if plain is None:
            for frame, numbers in _records(path, chain([(number, block)], blocks), dialect, width, columns):
                frames.append(frame)
                lines.append(numbers)
            break
        frames.append(plain[0])
        lines.append(plain[1])
    table = pl.concat(frames)
    if dialect.quote and dialect.one_byte != dialect.separator:
        table = table.with_columns(pl.all().str.replace_all(_ONE_BYTE, dialect.separator, literal=True))
    return table, lines


def _blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines without a byte order mark and without the line ends at the end of the block."""
    for number, block in line_blocks(path):
        if number == 1 and block.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise LorarecError(f"{path} is UTF-16 text: convert it to UTF-8, for example with iconv")
        body = (block.removeprefix(_BOM) if number == 1 else block).rstrip(b"\r\n")
        if body:
            yield number, body


def _first_line(blocks: Iterator[tuple[int, bytes]], path: Path) -> tuple[int, bytes, bytes]:
    """Number of the first line that is not blank, the line, and what follows it in its block."""
    for number, block in blocks:
        while block:
            line, _, block = block.partition(b"\n")
            if line.strip():
                return number, line.rstrip(b"\r"), block
            number += 1
    raise LorarecError(f"{path} is empty")


def _fields(line: bytes, dialect: Dialect, path: Path) -> list[str]:
    try:
        text = dialect.with_one_byte(line, path).decode("utf-8")
        fields = next(_reader(iter([text]), dialect))
    except UnicodeDecodeError:
        raise LorarecError(f"{path} is not UTF-8 text: convert it, for example with iconv") from None
    except csv.Error as error:
        raise LorarecError(f"{path}: the first line cannot be read ({error}): {_no_quotes()}") from None
    return [name.replace(dialect.one_byte, dialect.separator) for name in fields]


def _plain_block(
    body: bytes, number: int, dialect: Dialect, schema: dict[str, type[pl.String]], wanted: list[str], path: Path
) -> tuple[pl.DataFrame, Sequence[int]] | None:
    """A block each of whose lines is a row, and the lines' numbers; None where quotes ask for a closer look."""
    quote = (dialect.quote or "").encode()
    quoted = bool(quote) and quote in body
    unquoted = re.sub(quote + b"[^" + quote + b"]*" + quote, b"", body) if quoted else body
    if quoted and (quote in unquoted or unquoted.count(b"\n") != body.count(b"\n")):
        return None
    numbers: Sequence[int] = range(number, number + unquoted.count(b"\n") + 1)
    wrong = _lines_of_other_width(unquoted, dialect.one_byte, len(schema))
    if not wrong.is_empty():
        faults = wrong.filter(~pl.col("blank"))
        if not faults.is_empty():
            if quoted:
                return None
            line, fields = faults.row(0)[:2]
            raise _other_width(path, number + line, fields, len(schema))
        blank = set(wrong["line"].to_list())
        kept = [(place, line) for place, line in enumerate(body.split(b"\n")) if place not in blank]
        body, numbers = b"\n".join(line for _, line in kept), [number + place for place, _ in kept]
        if not kept:
            return pl.DataFrame(schema=schema).select(wanted), []
    lazy = pl.scan_csv(
        body, separator=dialect.one_byte, quote_char=dialect.quote, has_header=False, schema=schema, glob=False
    )
    try:
        return lazy.select(wanted).collect(engine="streaming"), numbers
    except pl.exceptions.PolarsError:
        if quoted:
            return None
        raise


def _lines_of_other_width(body: bytes, separator: str, width: int) -> pl.DataFrame:
    """line (from 0), fields and blank of the lines that do not have as many fields as the table."""
    absent = next(chr(code) for code in range(1, 32) if code not in b"\t\n\r" and bytes([code]) not in body)
    lines = pl.scan_csv(
        body,
        separator=absent,
        quote_char=None,
        has_header=False,
        schema={"text": pl.String},
        empty_string_is_null=False,
    )
    text = pl.col("text")
    fields = (text.str.count_matches(separator, literal=True) + 1).alias("fields")
    # Plain lines pass as one boolean: the rows themselves are only numbered where something is wrong.
    if not lines.select((fields != width).any()).collect(engine="streaming").item():
        return pl.DataFrame(schema={"line": pl.UInt32, "fields": pl.UInt32, "blank": pl.Boolean})
    blank = (text.str.strip_chars(" \r") == "").alias("blank")
    return lines.select(fields, blank).with_row_index("line").filter(pl.col("fields") != width).collect()


class _TextLines:
    """Lines of blocks as text, with their line ends; the lines since `begin` are kept for messages."""

    def __init__(self, blocks: Iterator[tuple[int, bytes]], dialect: Dialect, path: Path) -> None:
        self._lines = self._each(blocks, dialect, path)
        self.number, self.kept = 0, list[str]()

    def _each(self, blocks: Iterator[tuple[int, bytes]], dialect: Dialect, path: Path) -> Iterator[tuple[int, str]]:
        for number, block in blocks:
            text = dialect.with_one_byte(block, path).decode("utf-8")
            yield from enumerate((line + "\n" for line in text.split("\n")), start=number)

    def __iter__(self) -> "_TextLines":
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        self.kept.append(line)
        return line

    @property
    def begin(self) -> int:
        """Number of the first line that is kept."""
        return self.number - len(self.kept) + 1


def _records(
    path: Path, blocks: Iterator[tuple[int, bytes]], dialect: Dialect, width: int, columns: Sequence[int]
) -> Iterator[tuple[pl.DataFrame, list[int]]]:
    """Rows of all that is left of a file, some at a time, with the line on which each begins."""
    lines = _TextLines(blocks, dialect, path)
    reader = _reader(lines, dialect)
    rows: list[list[str | None]] = []
    numbers: list[int] = []
    schema = {str(place): pl.String for place in columns}
    while (record := _next_record(reader, lines, path)) is not None:
        if len(record) != width and "".join(lines.kept).strip():
            raise _other_width(path, lines.begin, len(record), width)
        if len(record) == width:
            if len(lines.kept) > 1 and not dialect.multiline:
                _refuse_swallowed(record, lines, dialect, path)
            rows.append([record[place] or None for place in columns])
            numbers.append(lines.begin)
        lines.kept.clear()
        if len(rows) == _ROWS_AT_ONCE:
            yield pl.DataFrame(rows, schema=schema, orient="row"), numbers
            rows, numbers = [], []
    yield pl.DataFrame(rows, schema=schema, orient="row"), numbers


def _reader(lines: Iterator[str], dialect: Dialect) -> Iterator[list[str]]:
    csv.field_size_limit(sys.maxsize)
    if dialect.quote is None:
        return csv.reader(lines, delimiter=dialect.one_byte, quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(lines, delimiter=dialect.one_byte, quotechar=dialect.quote, strict=True)


def _next_record(reader: Iterator[list[str]], lines: _TextLines, path: Path) -> list[str] | None:
    try:
        return next(reader, None)
    except UnicodeDecodeError:
        raise LorarecError(f"{path} is not UTF-8 text: convert it, for example with iconv") from None
    except csv.Error as error:
        if len(lines.kept) > 1:
            fault = f"a quoted field opens and has not ended properly by line {lines.number}"
        else:
            fault = f"a quoted field does not end where its quotes end ({error})"
        raise LorarecError(f"{path}: line {lines.begin}: {fault}: {_no_quotes()}, otherwise mend the line") from None


def _refuse_swallowed(record: list[str], lines: _TextLines, dialect: Dialect, path: Path) -> None:
    """Refuse a field that holds a line with as many separators as a row has."""
    first = 0
    for value in record:
        last = first + value.count("\n")
        for line in lines.kept[first + 1 : last + 1]:
            if line.count(dialect.one_byte) >= len(record) - 1:
                raise LorarecError(
                    f"{path}: line {lines.begin + first}: a quoted field opens here and swallows the lines up to "
                    f"{lines.begin + last}, which look like rows: {_no_quotes()}, "
                    f'or say quote="{"double" if dialect.quote == chr(34) else "single"}" '
                    "where the field is meant to hold them"
                )
        first = last


def _no_quotes() -> str:
    return 'where quotes are ordinary characters, say quote="none"'


def _other_width(path: Path, line: int, fields: int, width: int) -> LorarecError:
    return LorarecError(
        f"{path} cannot be read as a table: line {line} has {fields} field{'s' * (fields != 1)} and not {width} "
        "as the first line: mend or remove it"
    )
