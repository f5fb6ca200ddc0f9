"""Any table, with the user's own column names."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from lorarec.data.assemble import assemble
from lorarec.data.sources import read_table
from lorarec.data.sources.table import Columns
from lorarec.data.tables import TableOptions
from lorarec.errors import LorarecError

LOG = pl.DataFrame(
    {
        "customer": ["ann", "ann", "bob"],
        "sku": [7, 8, 7],
        "bought": ["2014-05-13T16:53:20Z", "2014-05-13T16:53:21Z", "2014-05-13T16:53:22Z"],
        "stars": [5, 4, None],
    }
)
CATALOGUE = pl.DataFrame(
    {"sku": [7, 8, 9], "name": ["Seven", "Eight", "Nine"], "maker": ["M", None, "N"], "price": [1.5, 2.0, 3.0]}
)
NAMES = Columns(user="customer", item="sku", time="bought", rating="stars", title="name")
EXPECTED = [("ann", "7", 1400000000, 5.0), ("ann", "8", 1400000001, 4.0), ("bob", "7", 1400000002, None)]


def _write(table: pl.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        table.write_parquet(path)
    elif path.suffix == ".jsonl":
        table.write_ndjson(path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress((table.write_ndjson() if "json" in path.name else table.write_csv()).encode()))
    else:
        table.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl", ".csv.gz", ".jsonl.gz"])
def test_forms(tmp_path: Path, suffix: str) -> None:
    log, catalogue = _write(LOG, tmp_path / f"log{suffix}"), _write(CATALOGUE, tmp_path / f"catalogue{suffix}")
    dataset = assemble(read_table(log, catalogue, columns=NAMES, licence="ours"))
    assert dataset.interactions.rows() == EXPECTED
    assert dataset.titles == {"7": "Seven", "8": "Eight"}
    assert dataset.items["maker"].to_list() == ["M", None]
    assert dataset.items.schema["price"] == pl.String
    assert dataset.name == "log"
    assert dataset.info["licence"] == "ours"


def test_separator_and_no_header(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("ann;7;1400000000\nbob;7;1400000001\n")
    columns = Columns(user="column_1", item="column_2", time="column_3")
    rows = read_table(tmp_path / "log.csv", columns=columns, options=TableOptions(";", header=False)).interactions
    assert rows.rows() == [("ann", "7", 1400000000), ("bob", "7", 1400000001)]


def test_titles_beside_the_interactions(tmp_path: Path) -> None:
    log = LOG.rename({"customer": "user_id", "sku": "item_id", "bought": "timestamp", "stars": "rating"})
    log = log.with_columns(title=pl.Series([None, "Eight", "Seven"]))
    dataset = assemble(read_table(_write(log, tmp_path / "log.parquet")))
    assert dataset.titles == {"7": "Seven", "8": "Eight"}
    assert dataset.interactions.rows() == EXPECTED


def test_lists_become_text_and_structures_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"sku": 7, "name": "Seven", "tags": ["a", "b"], "deep": [{"x": 1}]},
        {"sku": 8, "name": "Eight", "tags": []},
    ]
    (tmp_path / "catalogue.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    source = read_table(_write(LOG, tmp_path / "log.csv"), tmp_path / "catalogue.jsonl", columns=NAMES)
    assert source.items.columns == ["item_id", "title", "tags"]
    assert source.items["tags"].to_list() == ["a, b", ""]


def test_movielens_movies_as_the_table_of_items(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_bytes("7::Misérables, Les::Drama|War\n8::Eight::Action\n".encode("latin-1"))
    log = _write(LOG, tmp_path / "ratings.parquet")
    dataset = assemble(read_table(log, tmp_path / "movies.dat", columns=NAMES))
    assert dataset.items.rows() == [("7", "Misérables, Les", "Drama, War"), ("8", "Eight", "Action")]
    assert dataset.name == tmp_path.name.lower().replace("_", "-")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(), r"no column 'user_id' for user_id: name the right one with --user \(there are customer, sku"),
        (Columns("customer", "sku", "bought", rating="score"), "no column 'score' for rating.*--rating"),
        (Columns("customer", "sku", "bought", title="label"), "catalogue.csv: no column 'label' for title.*--title"),
        (Columns("customer", "sku", "stars"), "line 4 has no timestamp"),
        (Columns("customer", "sku", "customer"), "line 2 has timestamp 'ann', which cannot be read"),
    ],
)
def test_wrong_columns(tmp_path: Path, columns: Columns, message: str) -> None:
    log, catalogue = _write(LOG, tmp_path / "log.csv"), _write(CATALOGUE, tmp_path / "catalogue.csv")
    with pytest.raises(LorarecError, match=message):
        read_table(log, catalogue, columns=columns)
