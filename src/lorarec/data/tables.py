"""Tables as users hand them in: delimited text, JSON or Parquet, told apart by name and content."""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from lorarec.data.archives import check_gzip
from lorarec.data.delimited import Dialect, read_delimited, read_layout
from lorarec.data.reading import opened, records, table_errors
from lorarec.errors import LorarecError

BadTimes = Literal["refuse", "drop", "keep"]
Decimal = Literal["point", "comma"]
Ids = Literal["as-written", "trimmed", "numbers"]
Order = Literal["time", "file"]
Quote = Literal["none", "double", "single"]

_QUOTES: dict[Quote, str | None] = {"none": None, "double": '"', "single": "'"}
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_JSON = (".jsonl", ".ndjson", ".json")
_PARQUET = (".parquet", ".pq")
#: Suffixes of files whose separator is told by their content, RecBole's among them; files without a suffix as well.
_TEXT = (".txt", ".dat", ".data", ".psv", ".inter", ".item", ".user", "")
_NAMED = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json", ".txt", ".dat", ".inter")
#: In the order in which they are tried: one that is part of another comes after it.
_GUESSES = ("::", "||", "\t", "|", ";", ",", " ")
_SNIFFED_BYTES = 1 << 16
#: The headers of RecBole's files name the type of each column as well.
_TYPED = re.compile(r"(.+):(?:token|float|token_seq|float_seq)")


@dataclass(frozen=True)
class TableOptions:
    r"""How tables are read and what their values mean.

    Attributes:
        separator: between the fields of text, one character or several; `\t` may be written with a backslash. None is
            a comma for .csv, a tab for .tsv, and told by the content of files with other names.
        header: whether the first line of text names the columns; without it they are column_1, column_2, ...
        quote: the character around quoted fields. None is "none" where tabs or several characters separate fields, and
            otherwise "double", but then a quoted field that holds lines which look like rows is refused.
        time_format: form of times that are text, as in "%d.%m.%Y %H:%M" (the codes of `datetime.strptime`).
        bad_times: what is done with rows whose time is missing, unreadable, or far from the others: "refuse" the table,
            "drop" the rows, or "keep" those that are only far away.
        order: "file" takes the order of the rows in place of a time.
        decimal: what stands before the fraction of a rating; None takes a comma where it can mean nothing else.
        ids: "trimmed" ignores white space around ids, "numbers" also reads 12.0 and 012 as 12. None takes ids as they
            are written, and refuses two tables whose ids only match in one of these ways.

    Raises:
        LorarecError: the separator is empty or holds a quote or a line end.
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
        if self.separator is None:
            return
        separator = self.separator
        if "\\" in separator:
            try:
                separator = codecs.decode(separator.encode("latin-1", "backslashreplace"), "unicode_escape")
            except UnicodeDecodeError:
                raise LorarecError(f"separator {self.separator!r} is no character: write \\t for a tab") from None
        if not separator or any(character in separator for character in "\n\r\"'\0"):
            raise LorarecError(
                f"separator {self.separator!r} cannot divide fields: give one character or several, such as "
                "; or \\t or ::, without quotes or line ends"
            )
        object.__setattr__(self, "separator", separator)


@dataclass(frozen=True)
class Table:
    """A table that can be read column by column.

    Attributes:
        path: the file or folder.
        names: of its columns.
        types: of its columns; all are text in delimited files.
    """

    path: Path
    names: list[str]
    types: list[pl.DataType]
    _read: Callable[[Sequence[int]], tuple[pl.DataFrame, Callable[[int], str]]]

    def find(self, wanted: str) -> str | None:
        """The column of a name; a name that differs only in case, white space or a byte order mark counts as well.

        Raises:
            LorarecError: several columns have such a name.
        """
        if self.names.count(wanted) == 1:
            return wanted
        alike = [name for name in self.names if _plain(name) == _plain(wanted)]
        if len(alike) > 1:
            raise LorarecError(f"{self.path} has {len(alike)} columns called {wanted!r}: rename all but one")
        return alike[0] if alike else None

    def read(self, columns: Mapping[str, str]) -> tuple[pl.DataFrame, Callable[[int], str]]:
        """Read some columns, those of delimited text as text.

        Args:
            columns: new name -> name of a column.

        Returns:
            The columns in the order given, and a function from the number of a row (from 0) to words for its place in
            the file: "line 7" as an editor numbers lines, or "row 7" where there are none.

        Raises:
            LorarecError: the table is empty or damaged, or a row does not fit the header.
        """
        frame, place = self._read([self.names.index(name) for name in columns.values()])
        frame.columns = list(columns)
        return frame, place

    def require_single_values(self, columns: Iterable[str]) -> None:
        """Check that columns hold one value in each row.

        Raises:
            LorarecError: a column holds lists or structures; its type is named.
        """
        for name in columns:
            kind = self.types[self.names.index(name)]
            if kind.is_nested():
                raise LorarecError(
                    f"{self.path}: column {name!r} is of type {kind}, several values in a row: "
                    "write one value into each row (explode lists, unnest structures)"
                )


def row_number(row: int) -> str:
    """Words for the place of a row of a table that has no lines."""
    return f"row {row + 1}"


def open_table(path: str | Path, options: TableOptions | None = None) -> Table:
    """Look at a table's form and columns: a file, gzipped or not, or a folder of Parquet parts.

    Raises:
        LorarecError: there is no such file, its form is not known, or it is empty or damaged.
    """
    path, options = Path(path), options or TableOptions()
    if path.is_dir():
        return _parquet_folder(path)
    if not path.is_file():
        raise LorarecError(f"{path} does not exist or is not a file")
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if suffix not in (*_SEPARATORS, *_JSON, *_PARQUET, *_TEXT):
        raise LorarecError(f"{path}: its name does not tell its form: end it on one of {', '.join(_NAMED)}")
    check_gzip(path)  # polars unpacks whatever it is given
    head = _head(path)
    if suffix in _PARQUET or head.startswith(b"PAR1"):
        return _lazy_table(path, pl.scan_parquet(path, glob=False))
    if head.startswith(b"PK\x03\x04"):
        raise LorarecError(f"{path} is a zip archive or a spreadsheet: unpack it, or save it as CSV")
    if not head.strip():
        raise LorarecError(f"{path} is empty")
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if suffix in _JSON or (suffix in _TEXT and begin in (b"{", b"[")):
        return _json_array(path) if begin == b"[" else _json_lines(path)
    return _delimited(path, _dialect(path, suffix, head, options))


def _plain(name: str) -> str:
    return name.replace("\ufeff", "").strip().casefold()


def _head(path: Path) -> bytes:
    with opened(path) as stream:
        return stream.read(_SNIFFED_BYTES)


def _dialect(path: Path, suffix: str, head: bytes, options: TableOptions) -> Dialect:
    separator = options.separator or _SEPARATORS.get(suffix) or _guessed_separator(path, head)
    quote = options.quote or ("none" if separator == "\t" or len(separator) > 1 else "double")
    return Dialect(separator, _QUOTES[quote], multiline=options.quote is not None, header=options.header)


def _guessed_separator(path: Path, head: bytes) -> str:
    """The first of the usual separators of which all lines have the same number.

    Raises:
        LorarecError: there is none.
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
    # Rows that are cut or too long are told of by their line, when they are read by the header's separator.
    found = [separator for separator in _GUESSES if separator in lines[0]]
    if not found:
        raise LorarecError(f'{path}: what separates its fields cannot be told: say it, as in separator=";"')
    return found[0]


def _delimited(path: Path, dialect: Dialect) -> Table:
    layout = read_layout(path, dialect)
    names = layout.names
    typed = [_TYPED.fullmatch(name.strip()) for name in names]
    if all(typed):
        names = [match[1] for match in typed if match]

    def read(places: Sequence[int]) -> tuple[pl.DataFrame, Callable[[int], str]]:
        unique = list(dict.fromkeys(places))
        frame, line = read_delimited(path, dialect, layout, unique)
        chosen = [frame[str(place)].alias(str(number)) for number, place in enumerate(places)]
        return pl.DataFrame(chosen), lambda row: f"line {line(row)}"

    return Table(path, names, [pl.String()] * len(names), read)


def _lazy_table(
    path: Path, lazy: pl.LazyFrame, place: Callable[[int], str] = row_number, remedy: Callable[[], None] | None = None
) -> Table:
    """A table that polars scans.

    Args:
        remedy: called when it cannot be read, to say more exactly why.
    """

    def attempt(plan: pl.LazyFrame) -> pl.DataFrame:
        try:
            return plan.collect(engine="streaming")
        except pl.exceptions.PolarsError:
            if remedy is not None:
                remedy()
            raise

    def read(places: Sequence[int]) -> tuple[pl.DataFrame, Callable[[int], str]]:
        # Some writers store text without saying that it is text.
        chosen = [
            (pl.nth(each).cast(pl.String) if types[each] == pl.Binary else pl.nth(each)).alias(str(number))
            for number, each in enumerate(places)
        ]
        with table_errors(path):
            return attempt(lazy.select(chosen)), place

    with table_errors(path):
        try:
            schema = lazy.collect_schema()
        except pl.exceptions.PolarsError:
            if remedy is not None:
                remedy()
            raise
    types = schema.dtypes()
    return Table(path, schema.names(), types, read)


def _parquet_folder(path: Path) -> Table:
    if (path / "dataset.json").is_file():
        raise LorarecError(f"{path} is a dataset folder already: use it as it is")
    parts = sorted(part for suffix in _PARQUET for part in path.rglob(f"*{suffix}") if part.is_file())
    if not parts:
        raise LorarecError(f"{path} is a folder without Parquet files: name a file, or a folder of Parquet parts")
    return _lazy_table(path, pl.scan_parquet(parts, glob=False, hive_partitioning=False))


def _json_lines(path: Path) -> Table:
    def place(row: int) -> str:
        for number, (line, _) in enumerate(records(path)):
            if number == row:
                return f"line {line}"
        return row_number(row)

    def find_fault() -> None:
        with opened(path) as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip() and not _is_json_object(line.removeprefix(b"\xef\xbb\xbf")):
                    raise LorarecError(
                        f"{path} cannot be read as a table: line {number} is not a JSON object: mend or remove it "
                        "(JSON has double quotes around text, and null where Python writes None or NaN)"
                    )

    return _lazy_table(path, pl.scan_ndjson(path, infer_schema_length=None), place, find_fault)


def _is_json_object(line: bytes) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        return isinstance(json.loads(line, parse_constant=refuse), dict)
    except (ValueError, RecursionError):
        return False


def _json_array(path: Path) -> Table:
    with opened(path) as stream:
        content = stream.read()
    try:
        rows: list[Any] = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise LorarecError(f"{path} is not UTF-8 text: convert it, for example with iconv") from None
    except (ValueError, RecursionError) as error:
        raise LorarecError(f"{path} is not a JSON array: {error}") from None
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise LorarecError(f"{path}: {row_number(number)} of the array is not a JSON object: mend or remove it")
    if not rows:
        raise LorarecError(f"{path} is empty")
    with table_errors(path):
        frame = pl.DataFrame(rows, infer_schema_length=None)
    return _lazy_table(path, frame.lazy())
