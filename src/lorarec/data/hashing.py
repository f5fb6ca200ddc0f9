"""Fingerprints of tables, which do not depend on file format, compression or versions of libraries."""

import hashlib
from collections.abc import Iterable

import numpy as np
import polars as pl

_ROWS_AT_ONCE = 1_000_000
#: Length of a null list, which tells it from an empty one: what x86 processors convert NaN to.
_NULL_LENGTH = -(2**63)


def content_hash(*tables: pl.DataFrame) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 over column names, row order and values of tables.

    Columns may contain text, numbers or lists of text. A null differs from empty text and from zero.
    """
    digest = hashlib.sha256()
    for table in tables:
        digest.update(f"table {table.columns} {table.height}\n".encode())
        for rows in table.iter_slices(_ROWS_AT_ONCE):
            for column in rows:
                for part in _bytes_of(column):
                    digest.update(part)
    return digest.hexdigest()[:16]


def _bytes_of(column: pl.Series) -> Iterable[bytes]:
    if column.dtype.base_type() == pl.List:
        yield column.list.len().cast(pl.Int64).fill_null(_NULL_LENGTH).to_numpy().astype("<i8").tobytes()
        column = column.explode(empty_as_null=False)
    if column.dtype.is_decimal():
        column = column.cast(pl.String)
    if column.null_count():
        yield column.is_null().to_numpy().tobytes()
    if column.dtype == pl.String:
        text = column.fill_null("")
        yield text.str.len_bytes().to_numpy().astype("<i8").tobytes()
        yield text.str.join("").item().encode()
    else:
        number = "<f8" if column.dtype.is_float() else "<i8"
        yield column.fill_null(0).to_numpy().astype(np.dtype(number)).tobytes()
