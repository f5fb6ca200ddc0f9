"""Reading of delimited text (CSV, TSV and similar); every row must have as many fields as the header."""

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

from lorarec.data.reading import opened, refuse_other_encodings, table_errors
from lorarec.errors import LorarecError

if TYPE_CHECKING:
    from _csv import Reader

#: Replaces separators of several bytes, which the csv module does not support.
_ONE_BYTE = "\x1f"
_ROWS_AT_ONCE = 100_000
_TEXT = "text"
_NO_QUOTES = 'if quotes are ordinary characters in this file, use quote="none"'


@dataclass(frozen=True)
class Dialect:
    """The rules by which lines are divided into fields.

    Attributes:
        separator: The character, or several, between fields.
        quote: The character around quoted fields, doubled inside them; None if quotes are ordinary characters.
        multiline: Whether a quoted field may contain lines that look like rows of the table.
        header: Whether the first line contains the column names.
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
    """The columns of a delimited file and where its rows begin.

    Attributes:
        names: The column names: the fields of the header, or column_1, column_2, ...
        skipped: The number of lines before the first row: blank lines and the header.
    """

    names: list[str]
    skipped: int


def read_layout(path: Path, dialect: Dialect) -> Layout:
    """Read the columns from the first line that is not blank.

    Raises:
        LorarecError: The file is empty, is not UTF-8 text, or its header cannot be read.
    """
    with opened(path) as stream:
        for number, line in enumerate(stream):
            if number == 0 and (line[:1] in (b"\xff", b"\xfe") or b"\0" in line[:4]):
                refuse_other_encodings(path)
            if line.removeprefix(b"\xef\xbb\xbf").strip(b" \r\n"):
                break
        else:
            raise LorarecError(f"{path} is empty")
    if b"\r" in line.rstrip(b"\r\n"):
        raise LorarecError(f"{path} ends its lines with carriage returns alone: convert them to line feeds")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        refuse_other_encodings(path)
        raise
    if not dialect.one_byte:
        text = _replace_separator(text, dialect, path)
    fields = _next_record(_records(iter([text]), dialect), number, dialect, path) or []
    if dialect.header:
        return Layout(fields, number + 1)
    return Layout([f"column_{column}" for column in range(1, len(fields) + 1)], number)


def read_delimited(
    path: Path, dialect: Dialect, layout: Layout, columns: Sequence[int]
) -> tuple[pl.DataFrame, Callable[[int], int]]:
    """Read columns as text. Empty fields are null or empty text; blank lines are skipped.

    Polars reads files in which each line is a row. If quoted fields contain line ends, or quotes are unbalanced,
    Python's csv module reads the file record by record.

    Args:
        columns: The indices of the wanted columns, without repetitions.

    Returns:
        A frame whose columns are named by their indices, and a function from the number of a row (from 0) to the number
        of its line (from 1).

    Raises:
        LorarecError: A row has more or fewer fields than the header, a quoted field spans lines that look like rows or
            is not closed, or the file is damaged. The message names the line.
    """
    try:
        with table_errors(path):
            lines = _check_lines(path, dialect, layout)
            table = None if lines is None else _read_plain(path, dialect, layout, columns, lines)
    except LorarecError:
        refuse_other_encodings(path)
        raise
    if lines is None or table is None:
        return _read_records(path, dialect, layout, columns)

    def line(row: int) -> int:
        for blank in lines.blank:
            row += blank <= row
        return layout.skipped + row + 1

    return table, line


class _Lines(NamedTuple):
    """The numbers of blank lines, counted from 0 after the header, and whether any line has a quote."""

    blank: list[int]
    quoted: bool


def _check_lines(path: Path, dialect: Dialect, layout: Layout) -> _Lines | None:
    """Check that each line is a row or blank; return None if the csv module has to find where each record ends.

    Raises:
        LorarecError: A line has more or fewer fields than the header.
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
        # Quotes inside a field do not protect separators, so a line with quotes may have the right width after all.
        if quoted:
            return None
        line, count, _ = faults.row(0)
        raise _other_width(path, layout.skipped + line + 1, count, len(layout.names))
    return _Lines(numbered.select("line").collect(engine="streaming")["line"].to_list(), quoted)


def _well_formed(dialect: Dialect) -> str:
    """Return a pattern of lines in which a field that begins with a quote ends with one; polars reads others silently.

    Quotes within a field that begins with another character belong to the text.
    """
    separator, quote = re.escape(dialect.separator), re.escape(dialect.quote or "")
    field = f"(?:{quote}(?:[^{quote}]|{quote}{quote})*{quote}|[^{quote}{separator}][^{separator}]*)?"
    return f"^{field}(?:{separator}{field})*$"


def _read_plain(
    path: Path, dialect: Dialect, layout: Layout, columns: Sequence[int], lines: _Lines
) -> pl.DataFrame | None:
    """Read a file in which each line is a row or blank; return None if polars cannot read its quotes."""
    names = [str(index) for index in range(len(layout.names))]
    if dialect.one_byte:
        rows = pl.scan_csv(
            path,
            separator=dialect.separator,
            quote_char=dialect.quote,
            has_header=False,
            skip_lines=layout.skipped,
            schema=dict.fromkeys(names, pl.String),
            missing_columns="insert",  # the first line may be blank
            glob=False,
        )
    else:
        split = pl.col(_TEXT).str.split_exact(dialect.separator, len(names) - 1).struct.rename_fields(names)
        rows = pl.scan_lines(path, name=_TEXT, glob=False).slice(layout.skipped).select(split).unnest(_TEXT)
    wanted = rows.select(str(index) for index in columns)
    try:
        if lines.quoted:
            # Polars only reports rows that are too long when it reads all columns.
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
    width, names = len(layout.names), [str(index) for index in columns]
    frames = [pl.DataFrame(schema=dict.fromkeys(names, pl.String))]
    rows, numbers = list[list[str]](), list[int]()

    def move_rows_to_frames() -> None:
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
                    _refuse_spanned_rows(record, line, dialect, path)
                rows.append([record[index] for index in columns])
                numbers.append(line)
            elif len(record) > 1 or "".join(record).strip():
                raise _other_width(path, line, len(record), width)
            if len(rows) == _ROWS_AT_ONCE:
                move_rows_to_frames()
    if rows:
        move_rows_to_frames()
    return pl.concat(frames), numbers.__getitem__


def _text_lines(stream: BinaryIO, dialect: Dialect, path: Path) -> Iterator[str]:
    """Return lines as text, with separators that the csv module supports."""
    lines = TextIOWrapper(stream, encoding="utf-8-sig", newline="\n")
    if dialect.one_byte:
        return lines
    return (_replace_separator(line, dialect, path) for line in lines)


def _replace_separator(line: str, dialect: Dialect, path: Path) -> str:
    if _ONE_BYTE in line:
        raise LorarecError(f"{path} contains the control character U+001F: remove it, or use another separator")
    return line.replace(dialect.separator, _ONE_BYTE)


def _records(lines: Iterator[str], dialect: Dialect) -> "Reader":
    csv.field_size_limit(sys.maxsize)
    separator = dialect.separator if dialect.one_byte else _ONE_BYTE
    if dialect.quote is None:
        return csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(lines, delimiter=separator, quotechar=dialect.quote, strict=True)


def _next_record(reader: "Reader", skipped: int, dialect: Dialect, path: Path) -> list[str] | None:
    """Return the next record with its original separators, or None after the last one.

    Args:
        skipped: The number of lines in the file before those of the reader.
    """
    first = skipped + reader.line_num + 1
    try:
        record = next(reader, None)
    except UnicodeDecodeError:
        refuse_other_encodings(path)
        raise
    except csv.Error as error:
        last = skipped + reader.line_num
        if last > first:
            fault = f"a quoted field that opens here is not closed properly by line {last}"
        else:
            fault = f"a quoted field is not closed or has text after its closing quote ({error})"
        raise LorarecError(f"{path}: line {first}: {fault}: {_NO_QUOTES}, otherwise fix the line") from None
    if record is None or dialect.one_byte:
        return record
    return [value.replace(_ONE_BYTE, dialect.separator) for value in record]


def _refuse_spanned_rows(record: list[str], line: int, dialect: Dialect, path: Path) -> None:
    """Refuse a field that contains a line with as many separators as a row."""
    style = "double" if dialect.quote == '"' else "single"
    for number, value in enumerate(record):
        if "\n" not in value:
            continue
        spanned = value.split("\n")[1:]
        counts = [text.count(dialect.separator) for text in spanned]
        counts[-1] += len(record) - 1 - number  # the separators after the field are on its last line
        if max(counts) >= len(record) - 1:
            raise LorarecError(
                f"{path}: line {line}: a quoted field that opens here spans the lines up to {line + len(spanned)}, "
                f'which look like rows: {_NO_QUOTES}; if the field should contain them, use quote="{style}"'
            )
        line += len(spanned)


def _other_width(path: Path, line: int, fields: int, width: int) -> LorarecError:
    return LorarecError(
        f"{path} cannot be read as a table: line {line} has {fields} field{'s' * (fields != 1)}, not {width} like the "
        "first line: fix or remove it"
    )
