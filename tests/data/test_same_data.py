"""The same data has the same fingerprint, whatever library, format and type of column it comes in."""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import duckdb
import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorarec.data import Columns, Dataset, RawLog, read_query, read_table

SECONDS = [1_400_000_000 + 3_600 * k for k in range(40)]
RATINGS = [None if k % 7 == 0 else k % 10 / 2 for k in range(40)]
LOG = pl.DataFrame(
    {
        "user": [2**53 + 1 + k // 8 for k in range(40)],
        "sku": [f"{7 * k % 15:03}" for k in range(40)],
        "at": pl.Series(SECONDS),
        "stars": RATINGS,
    }
)
ITEMS = pl.DataFrame(
    {
        "sku": [f"{k:03}" for k in range(16)],
        "name": [f"Café {k} & more, “{k}”" for k in range(16)],
        "maker": [None if k == 3 else "M" for k in range(16)],
        "pages": list(range(16)),
        "price": [k / 4 for k in range(16)],
    }
)
NAMES = {"user": "user", "item": "sku", "time": "at", "rating": "stars", "title": "name"}
EXPECTED = Dataset.from_polars(LOG, ITEMS, **NAMES).fingerprint


def _of_raw_log(raw: RawLog) -> Dataset:
    return Dataset.from_raw_log(raw)


def _of_files(folder: Path, suffix: str) -> Dataset:
    for name, frame in (("log", LOG), ("items", ITEMS)):
        path = folder / f"{name}{suffix}"
        {
            ".csv": frame.write_csv,
            ".parquet": frame.write_parquet,
            ".jsonl": frame.write_ndjson,
        }[suffix](path)
    return _of_raw_log(read_table(folder / f"log{suffix}", folder / f"items{suffix}", columns=Columns(**NAMES)))


def _of_hive(folder: Path) -> Dataset:
    for (user,), part in LOG.partition_by("user", as_dict=True).items():
        (folder / "log" / f"user={user}").mkdir(parents=True)
        part.drop("user").write_parquet(folder / "log" / f"user={user}" / "0.parquet")
    ITEMS.write_parquet(folder / "items.parquet")
    return _of_raw_log(read_table(folder / "log", folder / "items.parquet", columns=Columns(**NAMES)))


def _of_memory(folder: Path) -> Dataset:
    store = fsspec.filesystem("memory")
    url = f"memory://{folder.name}"
    store.pipe_file(f"{url}/log.csv", LOG.write_csv().encode())
    store.pipe_file(f"{url}/items.csv", ITEMS.write_csv().encode())
    return _of_raw_log(read_table(f"{url}/log.csv", f"{url}/items.csv", columns=Columns(**NAMES)))


def _of_pandas(_: Path) -> Dataset:
    return Dataset.from_pandas(
        pd.DataFrame(LOG.to_dict(as_series=False)), pd.DataFrame(ITEMS.to_dict(as_series=False)), **NAMES
    )


def _of_pandas_csv(folder: Path) -> Dataset:
    for name, frame in (("log", LOG), ("items", ITEMS)):
        pd.DataFrame(frame.to_dict(as_series=False)).to_csv(folder / f"{name}.csv", index=False)
    return _of_raw_log(read_table(folder / "log.csv", folder / "items.csv", columns=Columns(**NAMES)))


def _of_arrow(_: Path) -> Dataset:
    return Dataset.from_arrow(LOG.to_arrow(), ITEMS.to_arrow(), **NAMES)


def _of_arrow_stream(_: Path) -> Dataset:
    return Dataset.from_arrow(pa.RecordBatchReader.from_stream(LOG), ITEMS, **NAMES)


def _of_hf(_: Path) -> Dataset:
    return Dataset.from_hf(datasets.Dataset(LOG.to_arrow()), datasets.Dataset(ITEMS.to_arrow()), **NAMES)


def _of_hf_splits(_: Path) -> Dataset:
    whole = datasets.Dataset.from_dict(LOG.to_dict(as_series=False))
    shuffled = whole.select(range(39, -1, -1)).select(range(39, -1, -1))
    splits = datasets.DatasetDict(train=shuffled.select(range(30)), test=shuffled.select(range(30, 40)))
    return Dataset.from_hf(splits, datasets.Dataset(ITEMS.to_arrow()), **NAMES)


def _of_sqlite(folder: Path) -> Dataset:
    connection = sqlite3.connect(folder / "shop.db")
    connection.execute("CREATE TABLE log (user INTEGER, sku TEXT, at INTEGER, stars REAL)")
    connection.execute("CREATE TABLE items (sku TEXT, name TEXT, maker TEXT, pages INTEGER, price REAL)")
    connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", LOG.rows())
    connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?)", ITEMS.rows())
    connection.commit()
    connection.close()
    return _of_query(f"sqlite:///{folder}/shop.db")


def _of_duckdb(folder: Path) -> Dataset:
    with duckdb.connect(folder / "shop.duckdb") as connection:
        for name, frame in (("log", LOG), ("items", ITEMS)):
            connection.register("frame", frame.to_arrow())
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM frame")
    return _of_query(f"duckdb:///{folder}/shop.duckdb")


def _of_query(uri: str) -> Dataset:
    raw = read_query(uri, "SELECT * FROM log", items_query="SELECT * FROM items", columns=Columns(**NAMES))
    return _of_raw_log(raw)


SOURCES: dict[str, Callable[[Path], Dataset]] = {
    "CSV": lambda folder: _of_files(folder, ".csv"),
    "CSV of pandas": _of_pandas_csv,
    "JSON lines": lambda folder: _of_files(folder, ".jsonl"),
    "Parquet": lambda folder: _of_files(folder, ".parquet"),
    "Parquet in partitions": _of_hive,
    "fsspec": _of_memory,
    "pandas": _of_pandas,
    "Arrow": _of_arrow,
    "Arrow stream": _of_arrow_stream,
    "datasets": _of_hf,
    "splits of datasets": _of_hf_splits,
    "SQLite": _of_sqlite,
    "DuckDB": _of_duckdb,
}


@pytest.mark.parametrize("source", SOURCES)
def test_sources(source: str, tmp_path: Path) -> None:
    dataset = SOURCES[source](tmp_path)
    assert dataset.items.rows() == Dataset.from_polars(LOG, ITEMS, **NAMES).items.rows()
    assert dataset.fingerprint == EXPECTED


USERS, SKUS = LOG["user"].to_list(), LOG["sku"].to_list()
MOMENTS = [datetime.fromtimestamp(second, UTC) for second in SECONDS]
NAIVE = [moment.replace(tzinfo=None) for moment in MOMENTS]
STAMPS = pa.array(NAIVE, pa.timestamp("us"))
FLOATS = pa.array(RATINGS, pa.float64())


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("user", pl.Series(USERS, dtype=pl.UInt64)),
        ("user", pl.Series(USERS, dtype=pl.Int128)),
        ("user", pl.Series(USERS).cast(pl.Decimal(20, 0))),
        ("user", pl.Series(map(str, USERS), dtype=pl.Categorical)),
        ("user", pl.Series([str(each).encode() for each in USERS])),
        ("at", pl.Series(NAIVE, dtype=pl.Datetime("ms"))),
        ("at", pl.Series(MOMENTS, dtype=pl.Datetime("ns", "UTC")).dt.convert_time_zone("Asia/Kathmandu")),
        ("at", pl.Series([moment.isoformat() for moment in MOMENTS])),
        ("at", pl.Series([1000 * second for second in SECONDS])),
        ("at", pl.Series(SECONDS, dtype=pl.Float64)),
        ("stars", pl.Series(RATINGS).cast(pl.Decimal(3, 1))),
        ("stars", pl.Series(RATINGS).cast(pl.String)),
        ("stars", pl.Series(RATINGS, dtype=pl.Float32)),
    ],
    ids=str,
)
def test_types_of_polars(name: str, values: pl.Series) -> None:
    log = LOG.with_columns(values.alias(name))
    assert Dataset.from_polars(log, ITEMS, **NAMES).fingerprint == EXPECTED


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("user", pd.Series(USERS, dtype="Int64")),
        ("user", pd.Series(USERS, dtype="uint64")),
        ("user", pd.Series(USERS, dtype="category")),
        ("user", pd.Series(USERS, dtype=object)),
        ("user", pd.Series([np.int64(each) for each in USERS], dtype=object)),
        ("user", pd.Series([Decimal(each) for each in USERS], dtype=object)),
        ("user", pd.Series(list(map(str, USERS)), dtype="string")),
        ("user", pd.Series(USERS, dtype=pd.ArrowDtype(pa.int64()))),
        ("user", pd.Series([str(each).encode() for each in USERS], dtype=object)),
        ("sku", pd.Series(SKUS, dtype="category")),
        ("sku", pd.Series(SKUS, dtype=pd.ArrowDtype(pa.large_string()))),
        ("at", pd.Series(pd.to_datetime(SECONDS, unit="s"))),
        ("at", pd.Series(pd.to_datetime(SECONDS, unit="s", utc=True)).dt.tz_convert("America/New_York")),
        ("at", pd.Series(MOMENTS, dtype=object)),
        ("at", pd.Series(NAIVE, dtype=object)),
        ("at", pd.Series(NAIVE).astype(pd.ArrowDtype(pa.timestamp("ms")))),
        ("stars", pd.Series(RATINGS, dtype="Float32")),
        ("stars", pd.Series(RATINGS, dtype=object)),
    ],
    ids=lambda each: str(getattr(each, "dtype", each)),
)
def test_types_of_pandas(name: str, values: "pd.Series[Any]") -> None:
    log = pd.DataFrame(LOG.to_dict(as_series=False)).assign(**{name: values})
    assert Dataset.from_pandas(log, pd.DataFrame(ITEMS.to_dict(as_series=False)), **NAMES).fingerprint == EXPECTED


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("user", pa.array(USERS, pa.uint64())),
        ("user", pa.array([Decimal(each) for each in USERS], pa.decimal128(20, 0))),
        ("user", pa.array([Decimal(each) for each in USERS], pa.decimal256(60, 0))),
        ("user", pa.array(USERS).dictionary_encode()),
        ("sku", pa.array(SKUS, pa.large_string())),
        ("sku", pa.array(SKUS, pa.string_view())),
        ("sku", pa.array(SKUS).dictionary_encode()),
        ("sku", pa.array([each.encode() for each in SKUS], pa.binary(3))),
        ("at", STAMPS),
        ("at", STAMPS.cast(pa.timestamp("s"))),
        ("at", STAMPS.cast(pa.timestamp("ns", "Europe/Berlin"))),
        ("at", STAMPS.cast(pa.timestamp("ms", "+05:30"))),
        ("stars", FLOATS.cast(pa.float16())),
        ("stars", FLOATS.cast(pa.decimal128(5, 2))),
    ],
    ids=lambda each: str(getattr(each, "type", each)),
)
def test_types_of_arrow(name: str, values: Any) -> None:
    log = LOG.to_arrow()
    log = log.set_column(log.schema.names.index(name), name, values)
    assert Dataset.from_arrow(log, ITEMS.to_arrow(), **NAMES).fingerprint == EXPECTED
    in_batches = pa.Table.from_batches(log.to_batches(max_chunksize=7))
    assert Dataset.from_arrow(in_batches, ITEMS.to_arrow(), **NAMES).fingerprint == EXPECTED
    if not str(values.type).startswith(("decimal256", "fixed_size_binary", "halffloat")):
        assert (
            Dataset.from_hf(datasets.Dataset(log), datasets.Dataset(ITEMS.to_arrow()), **NAMES).fingerprint == EXPECTED
        )


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.text("ab1 é", min_size=1).filter(str.strip),
            st.integers(0, 5),
            st.integers(10**8, 2 * 10**9),
            st.none() | st.floats(-5, 5, width=32),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_back_and_forth(rows: list[tuple[Any, ...]]) -> None:
    log = pl.DataFrame(
        rows,
        schema={"user_id": pl.String, "item_id": pl.Int64, "timestamp": pl.Int64, "rating": pl.Float32},
        orient="row",
    )
    items = pl.DataFrame({"item_id": range(6), "title": [f"T{k}" for k in range(6)], "maker": [None, *"abcde"]})
    dataset = Dataset.from_polars(log, items, keep_unseen=True, bad_times="keep")
    assert Dataset.from_frames("again", *dataset.to_polars()).fingerprint == dataset.fingerprint
    for make, frames in ((Dataset.from_polars, dataset.to_polars()), (Dataset.from_pandas, dataset.to_pandas())):
        again = make(*frames, keep_unseen=True, bad_times="keep")  # type: ignore[operator]
        assert again.fingerprint == dataset.fingerprint


LATER_FIRST = [datetime(2024, 5, 1, 10, 0, 0, micro, UTC) for micro in (900_000, 100_000, 500_000)]


@pytest.mark.parametrize(
    ("times", "time_format"),
    [
        ([round(time.timestamp() * 1000) for time in LATER_FIRST], None),
        ([str(round(time.timestamp() * 10**6)) for time in LATER_FIRST], None),
        ([time.timestamp() for time in LATER_FIRST], None),
        ([f"{time.timestamp():.3f}" for time in LATER_FIRST], None),
        (LATER_FIRST, None),
        ([time.isoformat() for time in LATER_FIRST], None),
        ([f"{time:%Y-%m-%d %H:%M:%S},{time.microsecond // 1000}" for time in LATER_FIRST], None),
        ([f"{time:%d.%m.%Y %H:%M:%S.%f}" for time in LATER_FIRST], "%d.%m.%Y %H:%M:%S.%f"),
    ],
)
def test_interactions_of_the_same_second_are_in_the_order_of_their_times(
    times: list[Any], time_format: str | None
) -> None:
    log = pl.DataFrame({"user_id": [1, 1, 1], "item_id": ["third", "first", "second"], "timestamp": times})
    shop = Dataset.from_polars(log, time_format=time_format, keep_untitled=True)
    assert shop.history("1") == ["first", "second", "third"]
    assert shop.interactions["timestamp"].n_unique() == 1


def test_rows_with_bad_times_are_named_by_their_place_in_the_log() -> None:
    times = ["2024-05-01 10:00:00.9", "soon", "2024-05-01 10:00:00.1"]
    log = pl.DataFrame({"user_id": [1, 1, 1], "item_id": ["b", "c", "a"], "timestamp": times})
    shop = Dataset.from_polars(log, bad_times="drop", keep_untitled=True)
    assert shop.history("1") == ["a", "b"]
    assert shop.info["import"]["first_of_them"] == ["row 2"]
