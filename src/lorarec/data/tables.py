"""Reading of tables from users: delimited text, JSON or Parquet, recognised by file name and content."""

import codecs
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from lorarec.data.archives import check_gzip
from lorarec.data.column_tables import Table, lazy_table
from lorarec.data.delimited import Dialect, read_delimited, read_layout
from lorarec.data.json_tables import json_array, json_lines
from lorarec.data.parquet_folder import PARQUET, scan_parquet_folder
from lorarec.data.reading import opened
from lorarec.errors import LorarecError

BadTimes = Literal["refuse", "drop", "keep"]
Decimal = Literal["point", "comma"]
Ids = Literal["as-written", "trimmed", "numbers"]
Order = Literal["time", "file"]
Quote = Literal["none", "double", "single"]

_QUOTES: dict[Quote, str | None] = {"none": None, "double": '"', "single": "'"}
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_JSON = (".jsonl", ".ndjson", ".json")
#: Suffixes of text files, RecBole's among them, whose separator is detected from their content.
_TEXT = (".txt", ".dat", ".data", ".psv", ".inter", ".item", ".user", "")
_NAMED = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json", ".txt", ".dat", ".inter")
_COMPRESSED = (".zip", ".zst", ".bz2", ".xz", ".7z", ".rar", ".tar", ".tgz", ".lz4")
_SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods")
#: Separators in the order in which they are tried; one that is part of another comes after it.
_GUESSES = ("::", "||", "\t", "|", ";", ",", " ")
_SNIFFED_BYTES = 1 << 16
#: What pandas, R, SQL and spreadsheets write for a missing value. Case matters, since "Nan" and "none" may be titles.
_MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "NULL", "null", "Null", "None", "\\N")
#: In RecBole's files the header also gives the type of each column.
_TYPED = re.compile(r"(.+):(?:token|float|token_seq|float_seq)")


@dataclass(frozen=True)
class TableFormat:
    r"""The format of tables: the layout of their files and the meaning of their values.

    Attributes:
        separator: The character, or several, between the fields of text; a tab may be written as `\t`. If None, it is a
            comma for .csv and a tab for .tsv, and is detected from the content of other text files.
        header: Whether the first line of text contains the column names; otherwise they are column_1, column_2, ...
        quote: The character around quoted fields. If None, there are no quotes if fields are separated by tabs or
            several characters, and otherwise double ones, but a quoted field that spans lines which look like rows is
            refused.
        time_format: The format of times that are text, as for `datetime.strptime`, such as "%d.%m.%Y %H:%M".
        bad_times: Treatment of rows whose time is missing, unreadable or far from the others: "refuse" the table,
            "drop" the rows, or "keep" times that are far from the others and refuse the rest.
        order: "file" uses the order of the rows in place of times.
        decimal: The decimal mark of ratings. If None, it is a point, or a comma if commas cannot separate thousands.
        ids: "trimmed" strips white space around ids; "numbers" also reads 12.0 and 012 as 12. If None, ids are
            unchanged, and two tables are refused if some of their ids match only in one of these ways.

    Raises:
        LorarecError: The separator is empty or contains a quote or a line end, or times are described that the order
            "file" does not read.
    """

    separator: str | None = None
    header: bool = True
    quote: Quote | None = None
    time_format: str | None = None
    bad_times: BadTimes = "refuse"
    order: Order = "time"
    decimal: Decimal | None = None
    ids: Ids | None = None

    def __post_init__(self) -> None:
        if self.order == "file" and (self.time_format is not None or self.bad_times != "refuse"):
            raise LorarecError('options time_format and bad_times have no use with order="file", which reads no times')
        if self.separator is None:
            return
        separator = self.separator
        if "\\" in separator:
            try:
                separator = codecs.decode(separator.encode("latin-1", "backslashreplace"), "unicode_escape")
            except UnicodeDecodeError:
                raise LorarecError(f"separator {self.separator!r} is not a valid escape: write \\t for a tab") from None
        if not separator or any(character in separator for character in "\n\r\"'\0"):
            raise LorarecError(
                f"separator {self.separator!r} cannot separate fields: give one character or several, such as "
                "; or \\t or ::, without quotes or line ends"
            )
        object.__setattr__(self, "separator", separator)


def without_missing(text: pl.Series) -> pl.Series:
    """Strip white space from text and replace text that represents a missing value by null."""
    text = text.str.strip_chars()
    frame = pl.DataFrame({"text": text})
    present = pl.when(~pl.col("text").is_in(_MISSING)).then("text")
    return frame.select(present).to_series().alias(text.name)


def open_table(path: str | Path, options: TableFormat | None = None) -> Table:
    """Detect the format and columns of a table: a file, which may be gzipped, or a folder of Parquet files.

    Raises:
        LorarecError: There is no such file, its format is unknown, or it is empty or damaged.
    """
    path, options = Path(path), options or TableFormat()
    if path.is_dir():
        return lazy_table(str(path), scan_parquet_folder(path))
    if not path.is_file():
        raise LorarecError(f"{path} does not exist or is not a file")
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if suffix in _COMPRESSED:
        raise LorarecError(f"{path} is compressed, and only gzip is read: unpack it, or compress it with gzip")
    if suffix in _SPREADSHEETS:
        raise LorarecError(f"{path} is a spreadsheet: save its sheet as CSV")
    if suffix not in (*_SEPARATORS, *_JSON, *PARQUET, *_TEXT):
        raise LorarecError(f"{path} has an unknown suffix: rename it so that it ends in one of {', '.join(_NAMED)}")
    check_gzip(path)  # polars unpacks gzip files without a limit
    head = _head(path)
    if suffix in PARQUET or head.startswith(b"PAR1"):
        return lazy_table(str(path), pl.scan_parquet(path, glob=False))
    if head.startswith(b"PK\x03\x04"):
        raise LorarecError(f"{path} is a zip archive or a spreadsheet: unpack it, or save it as CSV")
    if not head.strip():
        raise LorarecError(f"{path} is empty")
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if suffix in _JSON or (suffix in _TEXT and begin in (b"{", b"[")):
        return json_array(path) if begin == b"[" else json_lines(path)
    return _delimited(path, _dialect(path, suffix, head, options))


def _head(path: Path) -> bytes:
    with opened(path) as stream:
        return stream.read(_SNIFFED_BYTES)


def _dialect(path: Path, suffix: str, head: bytes, options: TableFormat) -> Dialect:
    separator = options.separator or _SEPARATORS.get(suffix) or _guessed_separator(path, head)
    quote = options.quote or ("none" if separator == "\t" or len(separator) > 1 else "double")
    return Dialect(separator, _QUOTES[quote], multiline=options.quote is not None, header=options.header)


def _guessed_separator(path: Path, head: bytes) -> str:
    """Return the first of the usual separators that occurs equally often in all lines, or else in the first line.

    Raises:
        LorarecError: The first line contains none of them.
    """
    text = head.decode("utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if len(head) == _SNIFFED_BYTES and len(lines) > 1:
        lines = lines[:-1]
    unquoted = [re.sub('"[^"]*"', "", line) for line in lines]
    for separator in _GUESSES:
        for each in (lines, unquoted):
            counts = {line.count(separator) for line in each}
            if len(counts) == 1 and counts != {0}:
                return separator
    # Some row is too short or too long: reading with the header's separator will report its line.
    candidates = [separator for separator in _GUESSES if separator in lines[0]]
    if not candidates:
        raise LorarecError(f'{path}: the separator of its fields cannot be detected: name it, as in separator=";"')
    return candidates[0]


def _delimited(path: Path, dialect: Dialect) -> Table:
    layout = read_layout(path, dialect)
    names = layout.names
    typed = [_TYPED.fullmatch(name.strip()) for name in names]
    if all(typed):
        names = [match[1] for match in typed if match]

    def read(indices: Sequence[int]) -> tuple[pl.DataFrame, Callable[[int], str]]:
        unique = list(dict.fromkeys(indices))
        frame, line = read_delimited(path, dialect, layout, unique)
        chosen = [frame[str(index)].alias(str(number)) for number, index in enumerate(indices)]
        return pl.DataFrame(chosen), lambda row: f"line {line(row)}"

    return Table(str(path), names, lambda _: pl.String(), read, is_text=True)
