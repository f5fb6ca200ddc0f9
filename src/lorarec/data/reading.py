"""Reading of plain and gzipped files from users, with errors that name the file and the line."""

import ast
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from lorarec.data.archives import gunzip, gzip_errors
from lorarec.errors import LorarecError
from lorarec.io import JsonObject, track_reading

_BLOCK_BYTES = 32 << 20
_LONGEST_LINE = 64 << 20
#: A name of JSON with a character that is written as an escape.
_ESCAPED_NAME = r'\\u[0-9a-fA-F]{4}[^"]*"\s*:'
#: Marks at the beginning of files in other encodings; that of UTF-32 begins with that of UTF-16.
_OTHER_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


@contextmanager
def opened(path: str | Path, progress: bool = False) -> Iterator[BinaryIO]:
    """Yield the unpacked bytes of a file, which may be gzipped whatever its name; `progress` is shown on stderr.

    Raises:
        LorarecError: The file cannot be read, its gzip stream is truncated or damaged, or it unpacks to more than
            `lorarec.data.archives` allows.
    """
    path = Path(path)
    with gzip_errors(path), open(path, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with track_reading(raw, path, progress) as tracked:
            yield gunzip(tracked, path) if zipped else tracked


def line_blocks(path: str | Path, progress: bool = False) -> Iterator[tuple[int, bytes]]:
    """Yield blocks of whole lines with the number of their first line, counted from 1.

    Raises:
        LorarecError: A line is longer than `_LONGEST_LINE`, or as for `opened`.
    """
    number, rest = 1, b""
    with opened(path, progress) as stream:
        while block := stream.read(_BLOCK_BYTES):
            head, newline, tail = block.rpartition(b"\n")
            if not newline:
                rest += tail
                if len(rest) > _LONGEST_LINE:
                    raise LorarecError(f"{path}: line {number} is longer than {_LONGEST_LINE >> 20} MiB: is it text?")
                continue
            yield number, rest + head + newline
            number += head.count(b"\n") + 1
            rest = tail
    if rest:
        yield number, rest


def first_line(path: str | Path) -> str:
    """Return the first line without its line end."""
    with opened(path) as stream:
        return stream.readline(_LONGEST_LINE).decode("utf-8", errors="replace").rstrip("\r\n")


def records(path: str | Path, progress: bool = False) -> Iterator[tuple[int, JsonObject]]:
    """Yield line number and object of every line: JSON, or a Python literal as in the Amazon files of 2014.

    Raises:
        LorarecError: A line is not an object.
    """
    for number, block in line_blocks(path, progress):
        for offset, line in enumerate(block.split(b"\n")):
            if line.strip():
                yield number + offset, parse_record(line, f"{path}: line {number + offset}")


def parse_record(line: bytes, where: str) -> JsonObject:
    """Parse an object from JSON or from a Python literal, without evaluating code.

    Raises:
        LorarecError: It is something else, or has a name twice.
    """
    try:
        value = json.loads(line, object_pairs_hook=object_of_pairs)
    except RecursionError:
        raise LorarecError(f"{where} is nested too deep: fix or remove it") from None
    except ValueError:
        try:
            value = _literal(line.decode("utf-8", errors="replace").strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
    if not isinstance(value, dict):
        raise LorarecError(f"{where} is neither a JSON object nor a Python literal of one: fix or remove it")
    refuse_repeated_name(value, where)
    return value


class _RepeatingObject(dict[str, Any]):
    """An object in which a name occurs more than once."""

    def __init__(self, pairs: Sequence[tuple[str, Any]], repeated: str) -> None:
        super().__init__(pairs)
        self.repeated = repeated


def object_of_pairs(pairs: Sequence[tuple[str, Any]]) -> JsonObject:
    """Return the object that has some names and values, for `json.loads`; see `refuse_repeated_name`."""
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    names = [name for name, _ in pairs]
    return _RepeatingObject(pairs, next(name for name in names if names.count(name) > 1))


def refuse_repeated_name(made: JsonObject, where: str) -> None:
    """Refuse an object that `object_of_pairs` made of a name with two values, of which JSON does not say which counts.

    Raises:
        LorarecError: It is one.
    """
    if isinstance(made, _RepeatingObject):
        raise LorarecError(
            f"{where} has the name {made.repeated!r} more than once, so its value is not certain: fix or remove it"
        )


def refuse_repeated_names(source: Path | bytes, names: Iterable[str], where: str | Path, first: int = 1) -> None:
    """Refuse lines of JSON whose object has one of some names more than once; polars reads the first of the values.

    Args:
        source: Path of the file, or lines of it.
        names: The names.
        where: The name of the file in error messages.
        first: The number of the first line.

    Raises:
        LorarecError: There is such a line.
    """
    keys = [rf"{re.escape(json.dumps(name, ensure_ascii=False))}\s*:" for name in names]
    line = pl.col("line").str
    # A name may also occur in an object within the object, or be written with escapes.
    suspicious = [line.count_matches(key) > 1 for key in keys] + [line.contains(_ESCAPED_NAME)]
    lines = pl.scan_lines(source, name="line", glob=False).with_row_index("number", first)
    for number, text in lines.filter(pl.any_horizontal(suspicious)).collect(engine="streaming").iter_rows():
        parse_record(text.encode(), f"{where}: line {number}")


def _literal(text: str) -> Any:
    """Return the value of a Python literal; an object with a name twice is a `_RepeatingObject`."""
    body = ast.parse(text, mode="eval").body
    value = ast.literal_eval(body)
    if isinstance(body, ast.Dict) and len(value) < len(body.keys):
        return object_of_pairs([(ast.literal_eval(name), None) for name in body.keys if name])
    return value


def read_json_lines(path: str | Path, columns: Sequence[str], progress: bool = False) -> pl.DataFrame:
    """Read some fields of lines of JSON (or Python literals) as text; missing fields are null.

    Raises:
        LorarecError: A line cannot be parsed, or no line has a field.
    """
    schema = pl.Schema(dict.fromkeys(columns, pl.String))
    frames = []
    for number, block in line_blocks(path, progress):
        try:
            frame = pl.read_ndjson(block, schema=schema)
            refuse_repeated_names(block, columns, path, number)
        except pl.exceptions.PolarsError:
            lines = [line for line in enumerate(block.split(b"\n"), start=number) if line[1].strip()]
            rows = [parse_record(line, f"{path}: line {at}") for at, line in lines]
            texts = {name: [_text(row.get(name)) for row in rows] for name in columns}
            frame = pl.DataFrame(texts, schema=schema)
        frames.append(frame)
    table = pl.concat(frames) if frames else pl.DataFrame(schema=schema)
    if table.is_empty():
        raise LorarecError(f"{path} is empty")
    for name in columns:
        if table[name].null_count() == table.height:
            known = ", ".join(parse_record(first_line(path).encode(), f"{path}: line 1"))
            raise LorarecError(f"{path}: no field {name!r} (the first line has {known})")
    return table


def column_names(lazy: pl.LazyFrame, path: str | Path) -> list[str]:
    """Return the names of the columns of a scanned table."""
    with table_errors(path):
        return lazy.collect_schema().names()


def collect(lazy: pl.LazyFrame, path: str | Path) -> pl.DataFrame:
    """Read a scanned table, streaming."""
    with table_errors(path):
        return lazy.collect(engine="streaming")


def refuse_other_encodings(path: str | Path) -> None:
    """Refuse a file that is not UTF-8 text.

    Raises:
        LorarecError: It is not; the message names the first line that shows it, and how to convert the file.
    """
    with opened(path) as stream:
        for number, line in enumerate(stream, start=1):
            for mark, name in _OTHER_MARKS.items():
                if number == 1 and line.startswith(mark):
                    raise LorarecError(f"{path} is {name} text: {_convert(name)}")
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise LorarecError(
                    f"{path} is not UTF-8 text: line {number} has the byte {line[error.start]:#04x} after "
                    f"{line[: error.start].decode('utf-8')[-20:]!r}: {_convert('WINDOWS-1252')}, with the encoding "
                    "that the file has"
                ) from None
            if number == 1 and b"\0" in line[:4]:
                name = "UTF-16BE" if line.startswith(b"\0") else "UTF-16LE"
                raise LorarecError(f"{path} seems to be {name} text: {_convert(name)}")


def _convert(encoding: str) -> str:
    return f"convert it, for example with `iconv -f {encoding} -t UTF-8`"


@contextmanager
def table_errors(path: str | Path) -> Iterator[None]:
    """Convert the errors of a table reader to one line that names the file."""
    try:
        yield
    except pl.exceptions.NoDataError:
        raise LorarecError(f"{path} is empty") from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).splitlines()[0]
        if "unable to parse time zone" in reason:  # such as +05:30, which has no name
            raise LorarecError(
                f"{path} has times in a zone that is not in the Time Zone Database: write them in UTC, or use pyarrow "
                "and `Dataset.from_arrow`"
            ) from None
        if "unexpected end of file" in reason:
            raise LorarecError(f"{path} is a truncated gzip file: download it again") from error
        if "utf-8" in reason or "utf8" in reason:
            raise LorarecError(f"{path} is not UTF-8 text: convert it, for example with iconv") from error
        raise LorarecError(f"{path} cannot be read as a table: {reason}") from error


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
