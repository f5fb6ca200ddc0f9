"""Files of predicted click probabilities."""

from pathlib import Path

import numpy as np
import polars as pl

from lorarec.data import ITEM, LABEL, TIME, USER, read_parquet
from lorarec.errors import LorarecError

#: Name of the file of predicted click probabilities that `personalize` writes into its folder.
PREDICTIONS = "predictions.parquet"


def predictions_file(path: Path) -> Path:
    """Return the path of a Parquet file, or of predictions.parquet in a folder that `personalize` wrote."""
    return path / PREDICTIONS if path.is_dir() else path


def read_predictions(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the labels (events,) and the probabilities (events,) by name of the row.

    Args:
        path: Parquet file with a column `label` (1 for a click, 0 for none) and a column of probabilities for each
            row of the table; it may have columns user_id, item_id and timestamp.

    Raises:
        LorarecError: The file is missing or is no Parquet file, a column is missing, or a value is no label or no
            probability.
    """
    table = read_parquet(path, "name one that `lorarec personal train` wrote, or write one like it")
    if LABEL not in table.columns:
        raise LorarecError(f"{path} has no column {LABEL}: add one with 1 for each click and 0 for the rest")
    rows = table.drop(USER, ITEM, TIME, LABEL, strict=False)
    if not rows.width:
        raise LorarecError(f"{path} has no column of probabilities beside {LABEL}: add one for each row of the table")
    _check(path, table[LABEL], pl.col(LABEL).is_in([0.0, 1.0]), "neither 0 nor 1")
    for column in rows:
        _check(path, column, pl.col(column.name).is_between(0, 1), "no probability between 0 and 1")
    labels = table[LABEL].cast(pl.Int8).to_numpy()
    return labels, {column.name: column.cast(pl.Float64).to_numpy() for column in rows}


def _check(path: Path, column: pl.Series, is_valid: pl.Expr, problem: str) -> None:
    """Refuse a column with a value that is missing or not valid."""
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise LorarecError(f"{path}: column {column.name} holds {column.dtype}, not numbers: fix or remove it")
    numbers = column.cast(pl.Float64)
    valid = numbers.to_frame().select(is_valid.fill_null(value=False)).to_series()
    if not valid.all():
        row = int((~valid).arg_max() or 0)
        value = "missing" if numbers[row] is None else f"{numbers[row]:g}, {problem}"
        raise LorarecError(f"{path}: row {row + 1} of column {column.name} is {value}")
