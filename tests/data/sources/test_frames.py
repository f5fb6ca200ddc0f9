"""Datasets from data frames of polars and pandas, Arrow tables and Hugging Face datasets."""

import sys
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lorarec.data import Dataset
from lorarec.errors import LorarecError

TIME = datetime(2014, 5, 13, 16, 53, 20)
LOG: dict[str, list[Any]] = {
    "customer": ["ann", "ann", "bob", "bob"],
    "sku": [7, 8, 7, 7],
    "bought": [1400000000, 1400000001, 1400000002, 1400000002],
    "stars": [5.0, 4.0, None, None],
}
CATALOGUE: dict[str, list[Any]] = {
    "code": [7, 8, 9],
    "name": ["Seven &amp; more", "Eight", "Nine"],
    "tags": [["a", "b"], [], None],
}
NAMES = {
    "user": "customer",
    "item": "sku",
    "time": "bought",
    "rating": "stars",
    "title": "name",
    "items_id": "code",
}
EXPECTED = [("ann", "7", 1400000000, 5.0), ("ann", "8", 1400000001, 4.0), ("bob", "7", 1400000002, None)]

Make = Callable[..., Dataset]


def _of_polars(log: dict[str, Any], items: dict[str, Any] | None = None, **settings: Any) -> Dataset:
    return Dataset.from_polars(pl.DataFrame(log), None if items is None else pl.DataFrame(items), **settings)


def _of_pandas(log: dict[str, Any], items: dict[str, Any] | None = None, **settings: Any) -> Dataset:
    return Dataset.from_pandas(pd.DataFrame(log), None if items is None else pd.DataFrame(items), **settings)


def _without_pyarrow(log: dict[str, Any], items: dict[str, Any] | None = None, **settings: Any) -> Dataset:
    with pd.option_context("mode.string_storage", "python"):
        return _of_pandas(log, items, **settings)


def _of_arrow(log: dict[str, Any], items: dict[str, Any] | None = None, **settings: Any) -> Dataset:
    return Dataset.from_arrow(pa.table(log), None if items is None else pa.table(items), **settings)


def _of_hf(log: dict[str, Any], items: dict[str, Any] | None = None, **settings: Any) -> Dataset:
    make = datasets.Dataset.from_dict
    return Dataset.from_hf(make(log), None if items is None else make(items), **settings)


@pytest.fixture(params=[_of_polars, _of_pandas, _without_pyarrow, _of_arrow, _of_hf])
def make(request: pytest.FixtureRequest) -> Make:
    """A function that makes a Dataset from columns, by way of a data frame."""
    return request.param  # type: ignore[no-any-return]


def test_frames_in_the_columns_of_a_shop(make: Make) -> None:
    dataset = make(LOG, CATALOGUE, **NAMES, name="shop", licence="ours")
    assert dataset.interactions.rows() == EXPECTED
    assert dataset.items.rows() == [("7", "Seven & more", "a, b"), ("8", "Eight", "")]
    assert dataset.name == dataset.info["name"] == "shop"
    assert dataset.info["licence"] == "ours"
    assert dataset.info["import"]["duplicate_rows_dropped"] == 1


def test_titles_in_the_log_and_the_options_of_an_import(make: Make) -> None:
    log = {
        "user_id": ["a", "a", "b", "b", "c"],
        "item_id": ["x", "y", "x", "y", "z"],
        "timestamp": ["14.11.2023"] * 5,
        "title": ["X", "Y", "X", "Y", None],
    }
    assert make(log, time_format="%d.%m.%Y", k_core=2).info["counts"] == {"users": 2, "items": 2, "interactions": 4}
    assert make(log, time_format="%d.%m.%Y", keep_untitled=True).titles == {"x": "X", "y": "Y", "z": "z"}
    del log["timestamp"]
    assert make(log, order="file").interactions["timestamp"].to_list() == [0, 1, 2, 3]


def test_a_lazy_frame() -> None:
    dataset = Dataset.from_polars(pl.LazyFrame(LOG), pl.LazyFrame(CATALOGUE), **NAMES)
    assert dataset.interactions.rows() == EXPECTED


@pytest.mark.parametrize(
    "times",
    [
        pd.Series([TIME, TIME]),
        pd.Series([TIME, TIME]).astype("datetime64[s]"),
        pd.Series([TIME, TIME]).dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin"),
        pd.Series([TIME, TIME]).astype(pd.ArrowDtype(pa.timestamp("ms"))),
        pd.Series([pd.Timestamp(TIME, tz="UTC").tz_convert("Asia/Tokyo"), TIME.replace(tzinfo=UTC)], dtype=object),
        pd.Series([1400000000, 1400000000], dtype="Int64"),
        pd.Series([1400000000.0, 1400000000.0]),
        pd.Series(["2014-05-13T16:53:20Z", 1400000000], dtype=object)[:1].repeat(2),
    ],
)
def test_times_of_pandas(times: "pd.Series[Any]") -> None:
    log = pd.DataFrame({"user_id": [1, 2], "item_id": ["a", "b"], "timestamp": times.to_numpy(), "title": "T"})
    log["timestamp"] = times.reset_index(drop=True)
    assert Dataset.from_pandas(log).interactions["timestamp"].to_list() == [1400000000] * 2


def test_dates_of_both(make: Make) -> None:
    log = {"user_id": [1], "item_id": [1], "timestamp": [date(2014, 5, 13)], "title": ["T"]}
    assert make(log).interactions["timestamp"].to_list() == [1399939200]


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (pd.Series([1, 2], dtype="category"), ["1", "2"]),
        (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
        (pd.Series(["a", "b"], dtype="string"), ["a", "b"]),
        (pd.Series(["a", "b"], dtype=pd.ArrowDtype(pa.string())), ["a", "b"]),
        (pd.Series([2**60 + 1, 2], dtype="Int64"), [str(2**60 + 1), "2"]),
        (pd.Series([np.int64(1), "b"], dtype=object), ["1", "b"]),
    ],
)
def test_ids_of_pandas(ids: "pd.Series[Any]", text: list[str]) -> None:
    log = pd.DataFrame({"user_id": ids, "item_id": ids, "timestamp": [0, 1], "title": "T"})
    assert sorted(Dataset.from_pandas(log).interactions["user_id"]) == sorted(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"user_id": None},
            r'log: no column \'user_id\' for user_id: name the right one with user="\.\.\." \(there are',
        ),
        ({"timestamp": [0, 1, None]}, "log: row 3 has no timestamp"),
        ({"timestamp": ["2024-01-01", "soon", "2024-01-02"]}, "log: row 2 has timestamp 'soon', which cannot be read"),
        ({"user_id": ["a", None, "b"]}, "log: row 2 has no user_id"),
        ({"item_id": ["a", " ", "b"]}, "log: row 2 has no item_id"),
        ({"item_id": [["a"], ["b"], ["c"]]}, r"log: column 'item_id' has type List\(String\)"),
        ({"rating": ["5", "five", "4"]}, "log: row 2 has rating 'five', which cannot be read"),
    ],
)
def test_errors_name_the_column_and_the_row(make: Make, change: dict[str, Any], message: str) -> None:
    log = {"user_id": ["a", "b", "c"], "item_id": ["x", "y", "z"], "timestamp": [0, 1, 2], "title": ["X", "Y", "Z"]}
    changed = {name: values for name, values in {**log, **change}.items() if values is not None}
    with pytest.raises(LorarecError, match=message) as caught:
        make(changed)
    assert "\n" not in str(caught.value)


def test_ids_that_match_but_for_how_they_are_written(make: Make) -> None:
    log = {"user_id": ["a"], "item_id": ["7.0"], "timestamp": [0]}
    items = {"item_id": ["7"], "title": ["Seven"]}
    with pytest.raises(LorarecError, match=r"log has item_id '7.0' and items has '7': .* use ids=\"numbers\""):
        make(log, items)
    assert make(log, items, ids="numbers").titles == {"7": "Seven"}


def test_columns_in_the_index_of_pandas() -> None:
    log = pd.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [0], "title": "T"}).set_index("user_id")
    with pytest.raises(LorarecError, match=r"'user_id' is in the index: pass log.reset_index\(\)"):
        Dataset.from_pandas(log)


def test_mixed_lists_are_refused_where_values_are_wanted_and_left_out_of_the_items() -> None:
    log = pd.DataFrame({"user_id": [1, 2], "item_id": ["x", "y"], "timestamp": [0, 1]})
    items = pd.DataFrame({"item_id": ["x", "y"], "title": ["X", "Y"], "tags": [["a"], "b"]})
    assert Dataset.from_pandas(log, items).items.columns == ["item_id", "title"]
    with pytest.raises(LorarecError, match="items: column 'tags' has type Object"):
        Dataset.from_pandas(log, items, title="tags")


def test_other_types_than_data_frames_are_refused() -> None:
    with pytest.raises(LorarecError, match="log is a dict, not a polars data frame"):
        Dataset.from_polars(LOG)  # type: ignore[arg-type]
    with pytest.raises(LorarecError, match="log is a dict, not a pandas data frame"):
        Dataset.from_pandas(LOG)
    with pytest.raises(LorarecError, match="log is a DataFrame, not a polars data frame"):
        Dataset.from_polars(pd.DataFrame(LOG))  # type: ignore[arg-type]
    with pytest.raises(LorarecError, match="log is a dict, not an Arrow table"):
        Dataset.from_arrow(LOG)
    with pytest.raises(LorarecError, match="log is a str, not a Hugging Face dataset"):
        Dataset.from_hf("owner/name")
    with pytest.raises(LorarecError, match="items is a list, not a Hugging Face dataset"):
        Dataset.from_hf(datasets.Dataset.from_dict(LOG), [])
    with pytest.raises(TypeError, match="unexpected keyword argument 'usr'"):
        Dataset.from_pandas(pd.DataFrame(LOG), usr="customer")  # type: ignore[call-arg]


ROWS: dict[str, list[Any]] = {
    "user_id": ["a", "b", "c"],
    "item_id": ["x", "y", "z"],
    "timestamp": [0, 1, 2],
    "title": ["X", "Y", "Z"],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"user_id": [1, "1", "b"]},
            r"log: column 'user_id' has values of different types, such as 1 in row 1 and '1'",
        ),
        (
            {"item_id": [7, 7.0, "b"]},
            r"log: column 'item_id' has values of different types, such as 7 in row 1 and 7\.0",
        ),
        ({"user_id": [True, 1, 2]}, "log: column 'user_id' has values of different types, such as True in row 1 and 1"),
        ({"user_id": [pd.NA, "a", "b"]}, "log: row 1 has no user_id"),
        ({"user_id": [1, 2, None]}, "log: row 3 has no user_id"),
        ({"user_id": [2.0**53, 1.0, 2.0]}, r"log: row 1 has user_id .* as a number of type Float64, which rounds"),
        ({"timestamp": [TIME, TIME.replace(tzinfo=UTC), TIME]}, "log: column 'timestamp' has times with and without"),
        ({"timestamp": pd.to_timedelta([1, 2, 3], unit="D")}, "log: column timestamp has type Duration"),
    ],
)
def test_what_pandas_holds_but_cannot_be_read_exactly(change: dict[str, Any], message: str) -> None:
    columns = {
        name: pd.Series(values, dtype=None if isinstance(values, pd.Index) else object)
        for name, values in {**ROWS, **change}.items()
    }
    with pytest.raises(LorarecError, match=message):
        Dataset.from_pandas(pd.DataFrame(columns))


def test_ids_of_items_that_were_rounded(make: Make) -> None:
    log = {name: values for name, values in ROWS.items() if name != "title"}
    with pytest.raises(LorarecError, match=r"items: row 2 has item_id .* which rounds numbers of this size"):
        make(log, {"item_id": [1.0, 2.0**60], "title": ["X", "Y"]})


def test_items_without_an_id_are_no_items(make: Make) -> None:
    items = {"item_id": [1.0, float("nan")], "title": ["One", "None"], "price": [float("nan"), 2.0]}
    dataset = make({"user_id": [1], "item_id": [1.0], "timestamp": [0]}, items, keep_unseen=True)
    assert dataset.items.rows() == [("1.0", "One", None)]


def test_further_columns_of_items_are_text(make: Make) -> None:
    items: dict[str, Any] = {
        "item_id": ["x", "y"],
        "title": ["X", "Y"],
        "released": [TIME, None],
        "seen": [TIME.replace(tzinfo=UTC), None],
        "age": [timedelta(days=1), None],
    }
    read = make({"user_id": ["a"], "item_id": ["x"], "timestamp": [0]}, items).items
    assert read.rows(named=True)[0] | {"age": None} == {
        "item_id": "x",
        "title": "X",
        "released": "2014-05-13 16:53:20",
        "seen": "2014-05-13 16:53:20",
        "age": None,
    }


def test_splits_are_one_log() -> None:
    parts = {
        name: datasets.Dataset.from_dict({key: values[at : at + 1] for key, values in ROWS.items()})
        for at, name in enumerate(["train", "test"])
    }
    assert Dataset.from_hf(datasets.DatasetDict(parts)).titles == {"x": "X", "y": "Y"}
    parts["items"] = parts["train"].remove_columns("title")
    with pytest.raises(
        LorarecError, match=r"the splits 'train' and 'items' have different columns \(user_id, .*data\['train'\]"
    ):
        Dataset.from_hf(datasets.DatasetDict(parts))
    with pytest.raises(LorarecError, match="log has no splits"):
        Dataset.from_hf(datasets.DatasetDict())


def test_class_labels_are_read_by_name() -> None:
    features = datasets.Features(
        {
            "user_id": datasets.Value("string"),
            "item_id": datasets.ClassLabel(names=["chair", "lamp"]),
            "timestamp": datasets.Value("int64"),
        }
    )
    rows = datasets.Dataset.from_dict(
        {"user_id": ["a", "a"], "item_id": [1, 0], "timestamp": [0, 1]}, features=features
    )
    assert Dataset.from_hf(rows, keep_untitled=True).history("a") == ["lamp", "chair"]
    unlabelled = datasets.Dataset.from_dict({"user_id": ["a"], "item_id": [-1], "timestamp": [0]}, features=features)
    with pytest.raises(LorarecError, match="log: row 1 has no item_id"):
        Dataset.from_hf(unlabelled)


def test_streamed_datasets_are_refused() -> None:
    with pytest.raises(LorarecError, match="log is an IterableDataset: load it without streaming"):
        Dataset.from_hf(datasets.Dataset.from_dict(ROWS).to_iterable_dataset())


def test_arrow_streams_and_what_they_cannot_be() -> None:
    assert Dataset.from_arrow(pl.DataFrame(ROWS)).titles == {"x": "X", "y": "Y", "z": "Z"}
    assert Dataset.from_arrow(duckdb.sql("SELECT 1 user_id, 2 item_id, 3 AS timestamp, 'T' title")).titles == {"2": "T"}
    twice = pa.Table.from_arrays([pa.array([1])] * 2, names=["a", "a"])
    with pytest.raises(LorarecError, match="log has 2 columns called 'a': rename all but one"):
        Dataset.from_arrow(twice, user="a")
    with pytest.raises(LorarecError, match="log cannot be read as an Arrow table"):
        Dataset.from_arrow(pa.RecordBatchReader.from_batches(twice.schema, twice.to_batches()))
    with pytest.raises(LorarecError, match="log: column 'user_id' is not UTF-8 text"):
        Dataset.from_arrow(pa.table({**ROWS, "user_id": [b"\xff"] * 3}))


def test_identifiers_of_arrow() -> None:
    ids = [uuid.UUID(int=number) for number in range(3)]
    log = pa.table({**ROWS, "user_id": pa.array([each.bytes for each in ids], pa.uuid())})
    assert sorted(Dataset.from_arrow(log).interactions["user_id"]) == sorted(map(str, ids))


def test_back_to_data_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    dataset = Dataset.from_pandas(pd.DataFrame(LOG), pd.DataFrame(CATALOGUE), **NAMES)
    log, items = dataset.to_pandas()
    assert log.columns.tolist() == ["user_id", "item_id", "timestamp", "rating"]
    assert log["rating"].isna().tolist() == [False, False, True]
    assert items.to_dict("list") == {"item_id": ["7", "8"], "title": ["Seven & more", "Eight"], "tags": ["a, b", ""]}
    of_polars = dataset.to_polars()
    assert of_polars[0].rows() == EXPECTED
    assert of_polars[1].equals(dataset.items)


def test_columns_without_names_are_called_by_their_numbers_as_text() -> None:
    log = pd.DataFrame([[1, "b7", 0, "Chair"], [1, "a3", 1, "Lamp"]])
    assert Dataset.from_pandas(log, user="0", item="1", time="2", title="3").titles == {"a3": "Lamp", "b7": "Chair"}
    with pytest.raises(LorarecError, match="option user must be the name of a column as text, got 0"):
        Dataset.from_pandas(log, user=0, item=1, time=2, title=3)  # type: ignore[arg-type]
    with pytest.raises(LorarecError, match="option time must be the name of a column as text, got None"):
        Dataset.from_pandas(log, user="0", item="1", time=None, title="3")  # type: ignore[arg-type]
