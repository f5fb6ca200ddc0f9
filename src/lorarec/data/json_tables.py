"""Tables in JSON: an object on each line, or an array of objects."""

import glob
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from lorarec.data.column_tables import Table, column_table, lazy_table, row_number
from lorarec.data.objects import series_of
from lorarec.data.reading import (
    object_of_pairs,
    opened,
    records,
    refuse_other_encodings,
    refuse_repeated_name,
    refuse_repeated_names,
)
from lorarec.errors import LorarecError

_LINE = "line"
_WAY = 'write one object on each line, as pandas does with to_json(path, orient="records", lines=True)'


def json_lines(path: Path) -> Table:
    """Return a table with a JSON object on each line.

    Raises:
        LorarecError: A line is not a JSON object, or the file is one object that contains the table.
    """

    def name_row(row: int) -> str:
        for number, (line, _) in enumerate(records(path)):
            if number == row:
                return f"line {line}"
        return row_number(row)

    def name_faulty_line() -> None:
        refuse_other_encodings(path)
        with opened(path) as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip() and not _is_object(line.removeprefix(b"\xef\xbb\xbf")):
                    raise LorarecError(
                        f"{path} cannot be read as a table: line {number} is not a JSON object: fix or remove it "
                        f"(JSON has double quotes around text, and null where Python writes None or NaN), or {_WAY}"
                    )

    @cache
    def objects(name: str, dtype: pl.DataType) -> Sequence[Any] | None:
        if not _may_have_several_types(path, name, dtype):
            return None
        return [record.get(name) for _, record in records(path)]

    def check(names: Sequence[str]) -> None:
        refuse_repeated_names(path, names, path)

    lazy = pl.scan_ndjson(glob.escape(str(path)), infer_schema_length=None)  # it has no option glob
    table = lazy_table(str(path), lazy, name_row, name_faulty_line, objects=objects, check=check)
    if all(table.dtype(index).is_nested() for index in range(len(table.names))):
        raise LorarecError(f"{path} is a JSON object that contains a table ({', '.join(table.names)}): {_WAY}")
    return table


def json_array(path: Path) -> Table:
    """Return a table that is a JSON array of objects.

    Raises:
        LorarecError: It is not JSON, contains something other than objects, or an object has a name twice.
    """
    with opened(path) as stream:
        content = stream.read()
    try:
        rows: list[Any] = json.loads(
            content.decode("utf-8-sig"), parse_constant=_constant, object_pairs_hook=object_of_pairs
        )
    except UnicodeDecodeError:
        refuse_other_encodings(path)
        raise
    except (ValueError, RecursionError) as error:
        raise LorarecError(f"{path} is not a JSON array: {error}") from None
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise LorarecError(f"{path}: {row_number(number)} of the array is not a JSON object: fix or remove it")
        refuse_repeated_name(row, f"{path}: {row_number(number)} of the array")
    if not rows:
        raise LorarecError(f"{path} is empty")
    names = list(dict.fromkeys(name for row in rows for name in row))

    @cache
    def objects(index: int) -> Sequence[Any]:
        return [row.get(names[index]) for row in rows]

    return column_table(str(path), names, lambda index: series_of(objects(index)), "table", objects=objects)


def _constant(name: str) -> float | None:
    """Return the value of NaN, which pandas writes for missing values, Infinity or -Infinity."""
    return None if name == "NaN" else float(name)


def _is_object(line: bytes) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        return isinstance(json.loads(line, parse_constant=refuse), dict)
    except (ValueError, RecursionError):
        return False


def _may_have_several_types(path: Path, name: str, dtype: pl.DataType) -> bool:
    """Return whether polars may have converted values of a column: 7 to "7" or 7.0, or half a character to another."""
    key = rf"{re.escape(json.dumps(name, ensure_ascii=False))}\s*:\s*"
    if dtype == pl.String:
        patterns = [key + "[-0-9tf]", r"\\u[dD][89abAB]"]
    elif dtype.is_float():
        patterns = [key + r"-?[0-9]+\s*[,}]"]
    else:
        return False
    lines = pl.scan_lines(path, name=_LINE, glob=False)
    found = lines.select(pl.any_horizontal(pl.col(_LINE).str.contains(each) for each in patterns).any())
    return bool(found.collect(engine="streaming").item())
