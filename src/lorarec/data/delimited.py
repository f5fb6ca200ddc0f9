"""Delimited text (CSV, TSV and the like): every line is checked against the header before values are read."""

import csv
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import polars as pl

from lorarec.data.reading import opened, table_errors
from lorarec.errors import LorarecError

if TYPE_CHECKING:
    from _csv import Reader

#: Stands for separators of several bytes, which the csv module does not take.
_ONE_BYTE = "\x1f"
_ROWS_AT_ONCE = 100_000
_TEXT = "text"
_NOT_UTF8 = "is not UTF-8 text: convert it, for example with iconv"
_NO_QUOTES = 'where quotes are ordinary characters, say quote="none"'


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
    def one_byte(self) -> bool:
        """Whether the separator is a single byte."""
        return len(self.separator.encode()) == 1


@dataclass(frozen=True)
class Layout:
    """Columns of a delimited file and where its rows begin.

    Attributes:
        names: of the columns: the fields of the header, or column_1, column_2, ...
        skipped: lines before the first row: blank ones and the header.
    """

    names: list[str]
    skipped: int


def read_layout(path: Path, dialect: Dialect) -> Layout:
    """Look at the first line that is not blank.

    Raises:
        LorarecError: the file is empty, is not UTF-8 text, or its header cannot be read.
    """
    with opened(path) as stream:
        for number, line in enumerate(stream):
            if number == 0 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise LorarecError(f"{path} is UTF-16 text: convert it to UTF-8, for example with iconv")
            if line.removeprefix(b"\xef\xbb\xbf").strip(b" \r\n"):
                break
        else:
            raise LorarecError(f"{path} is empty")
    if b"\r" in line.rstrip(b"\r\n"):
        raise LorarecError(f"{path} ends its lines by carriage returns alone: convert them to line feeds")
    try:
        text = line.decode("utf-8-sig") if dialect.one_byte else _with_one_byte(line.decode("utf-8-sig"), dialect, path)
    except UnicodeDecodeError:
        raise LorarecError(f"{path} {_NOT_UTF8}") from None
    fields = _next_record(_records(iter([text]), dialect), number, dialect, path) or []
    if dialect.header:
        return Layout(fields, number + 1)
    return Layout([f"column_{column}" for column in range(1, len(fields) + 1)], number)


def read_delimited(
    path: Path, dialect: Dialect, layout: Layout, columns: Sequence[int]
) -> tuple[pl.DataFrame, Callable[[int], int]]:
    """Read columns as text; empty fields are null or empty text, blank lines are passed over.

    Files each of whose lines is a row are left to polars. Where quoted fields hold line ends, or quotes are not
    balanced, Python's csv module reads record by record.

    Args:
        columns: places of the wanted columns in a row, each once.

    Returns:
        Columns named by their places, and from the number of a row (from 0) to that of its line (from 1).

    Raises:
        LorarecError: a row has more or fewer fields than the header, a quoted field swallows rows or does not end, or
            the file is damaged. The line is named.
    """
    with table_errors(path):
        lines = _check_lines(path, dialect, layout)
        table = None if lines is None else _read_plain(path, dialect, layout, columns, lines)
    if lines is None or table is None:
        return _read_records(path, dialect, layout, columns)

    def line(row: int) -> int:
        for blank in lines.blank:
            row += blank <= row
        return layout.skipped + row + 1

    return table, line


class _Lines(NamedTuple):
    """What is known of the lines after the header: which are blank, from 0, and whether any has a quote."""

    blank: list[int]
    quoted: bool


def _check_lines(path: Path, dialect: Dialect, layout: Layout) -> _Lines | None:
    """Check that each line is a row or blank; None where records have to be told apart one by one.

    Raises:
        LorarecError: a line has more or fewer fields than the header.
    """
    if dialect.quote and not dialect.one_byte:
        return None
    lines = pl.scan_lines(path, name=_TEXT, glob=False).slice(layout.skipped).with_columns(bare=pl.col(_TEXT))
    fields = pl.col("bare").str.count_matches(dialect.separator, literal=True) + 1
    wrong = (fields != len(layout.names)).alias("wrong")
    has_quote = pl.col("bare").str.contains(dialect.quote or "", literal=True).alias("has_quote")

    def any_line(*conditions: pl.Expr) -> list[bool]:
        return list(lines.select(each.any() for each in conditions).collect(engine="streaming").row(0))

    some_wrong, quoted = any_line(wrong, has_quote) if dialect.quote else (*any_line(wrong), False)
    if quoted:
        in_quotes = f"{dialect.quote}[^{dialect.quote}]*{dialect.quote}"
        lines = lines.with_columns(bare=pl.col(_TEXT).str.replace_all(in_quotes, ""))
        malformed = ~pl.col(_TEXT).str.contains(_well_formed(dialect))
        some_wrong, unbalanced, some_malformed = any_line(wrong, has_quote, malformed)
        if unbalanced or some_malformed:
            return None
    if not some_wrong:
        return _Lines([], quoted)
    is_blank = (pl.col(_TEXT).str.strip_chars(" ") == "").alias("blank")
    numbered = lines.with_row_index("line").filter(wrong).select("line", fields.alias("fields"), is_blank)
    faults = numbered.filter(~pl.col("blank")).head(1).collect(engine="streaming")
    if not faults.is_empty():
        # In a quoted field that is not where a field begins, separators count after all.
        if quoted:
            return None
        line, count, _ = faults.row(0)
        raise _other_width(path, layout.skipped + line + 1, count, len(layout.names))
    return _Lines(numbered.select("line").collect(engine="streaming")["line"].to_list(), quoted)


def _well_formed(dialect: Dialect) -> str:
    """A pattern of lines in which a field that begins with a quote ends with one; polars reads others without an error.

    Quotes within a field that begins with another character belong to the text.
    """
    separator, quote = re.escape(dialect.separator), re.escape(dialect.quote or "")
    field = f"(?:{quote}(?:[^{quote}]|{quote}{quote})*{quote}|[^{quote}{separator}][^{separator}]*)?"
    return f"^{field}(?:{separator}{field})*$"


def _read_plain(
    path: Path, dialect: Dialect, layout: Layout, columns: Sequence[int], lines: _Lines
) -> pl.DataFrame | None:
    """The rows of a file each of whose lines is a row or blank; None where quotes turn out to be no plain ones."""
    places = [str(place) for place in range(len(layout.names))]
    if dialect.one_byte:
        rows = pl.scan_csv(
            path,
            separator=dialect.separator,
            quote_char=dialect.quote,
            has_header=False,
            skip_lines=layout.skipped,
            schema=dict.fromkeys(places, pl.String),
            missing_columns="insert",  # the first line may be blank
            glob=False,
        )
    else:
        split = pl.col(_TEXT).str.split_exact(dialect.separator, len(places) - 1).struct.rename_fields(places)
        rows = pl.scan_lines(path, name=_TEXT, glob=False).slice(layout.skipped).select(split).unnest(_TEXT)
    wanted = rows.select(str(place) for place in columns)
    try:
        if lines.quoted:
            # Of rows that are too long only a reader of all columns complains.
            rows.select(pl.all().null_count()).collect(engine="streaming")
        if not lines.blank:
            return wanted.collect(engine="streaming")
        numbered = wanted.with_row_index("line").filter(~pl.col("line").is_in(lines.blank))
        return numbered.drop("line").collect(engine="streaming")
    except pl.exceptions.PolarsError:
        if lines.quoted:
            return None
        raise


def _read_records(
    path: Path, dialect: Dialect, layout: Layout, columns: Sequence[int]
) -> tuple[pl.DataFrame, Callable[[int], int]]:
    width, names = len(layout.names), [str(place) for place in columns]
    frames = [pl.DataFrame(schema=dict.fromkeys(names, pl.String))]
    rows, numbers = list[list[str]](), list[int]()

    def put_aside() -> None:
        values = zip(*rows, strict=True)
        frames.append(pl.DataFrame(dict(zip(names, values, strict=True)), schema=dict.fromkeys(names, pl.String)))
        rows.clear()

    with opened(path) as stream:
        reader = _records(islice(_text_lines(stream, dialect, path), layout.skipped, None), dialect)
        before = layout.skipped
        while (record := _next_record(reader, layout.skipped, dialect, path)) is not None:
            line, before = before + 1, layout.skipped + reader.line_num
            if len(record) == width:
                if before > line and not dialect.multiline:
                    _refuse_swallowed(record, line, dialect, path)
                rows.append([record[place] for place in columns])
                numbers.append(line)
            elif len(record) > 1 or "".join(record).strip():
                raise _other_width(path, line, len(record), width)
            if len(rows) == _ROWS_AT_ONCE:
                put_aside()
    if rows:
        put_aside()
    return pl.concat(frames), numbers.__getitem__


def _text_lines(stream: BinaryIO, dialect: Dialect, path: Path) -> Iterator[str]:
    """Lines as text, with separators that the csv module takes."""
    lines = TextIOWrapper(stream, encoding="utf-8-sig", newline="\n")
    if dialect.one_byte:
        return lines
    return (_with_one_byte(line, dialect, path) for line in lines)


def _with_one_byte(line: str, dialect: Dialect, path: Path) -> str:
    if _ONE_BYTE in line:
        raise LorarecError(f"{path} holds the control character U+001F: remove it, or use another separator")
    return line.replace(dialect.separator, _ONE_BYTE)


def _records(lines: Iterator[str], dialect: Dialect) -> "Reader":
    csv.field_size_limit(sys.maxsize)
    separator = dialect.separator if dialect.one_byte else _ONE_BYTE
    if dialect.quote is None:
        return csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(lines, delimiter=separator, quotechar=dialect.quote, strict=True)


def _next_record(reader: "Reader", skipped: int, dialect: Dialect, path: Path) -> list[str] | None:
    """The next record, with the separators that quoted fields hold; None behind the last one.

    Args:
        skipped: lines before those of the reader.
    """
    first = skipped + reader.line_num + 1
    try:
        record = next(reader, None)
    except UnicodeDecodeError:
        raise LorarecError(f"{path} {_NOT_UTF8}") from None
    except csv.Error as error:
        last = skipped + reader.line_num
        if last > first:
            fault = f"a quoted field opens and does not end properly by line {last}"
        else:
            fault = f"a quoted field does not end where its quotes end ({error})"
        raise LorarecError(f"{path}: line {first}: {fault}: {_NO_QUOTES}, otherwise mend the line") from None
    if record is None or dialect.one_byte:
        return record
    return [value.replace(_ONE_BYTE, dialect.separator) for value in record]


def _refuse_swallowed(record: list[str], line: int, dialect: Dialect, path: Path) -> None:
    """Refuse a field that holds a line with as many separators as a row has."""
    style = "double" if dialect.quote == '"' else "single"
    for number, value in enumerate(record):
        if "\n" not in value:
            continue
        swallowed = value.split("\n")[1:]
        counts = [text.count(dialect.separator) for text in swallowed]
        counts[-1] += len(record) - 1 - number  # the separators behind the field are on its last line
        if max(counts) >= len(record) - 1:
            raise LorarecError(
                f"{path}: line {line}: a quoted field opens here and swallows the lines up to {line + len(swallowed)}, "
                f'which look like rows: {_NO_QUOTES}, or quote="{style}" where the field is meant to hold them'
            )
        line += len(swallowed)


def _other_width(path: Path, line: int, fields: int, width: int) -> LorarecError:
    return LorarecError(
        f"{path} cannot be read as a table: line {line} has {fields} field{'s' * (fields != 1)}, not {width} as the "
        "first line: mend or remove it"
    )
