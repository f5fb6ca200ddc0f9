"""Datasets from queries to SQLite by SQLAlchemy and to DuckDB."""

import sqlite3
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from lorarec.data import Columns, Dataset, read_query
from lorarec.data.tables import TableFormat
from lorarec.errors import LorarecError

NAMES = Columns(user="customer", item="sku", time="bought", rating="stars", title="name")
ORDERS = [("ann", 7, 1400000000, 5.0), ("ann", 8, 1400000001, None), ("bob", 7, 1400000002, 3.5)]
PRODUCTS = [(7, "Seven: 100% :cotton", "M"), (8, "Eight", None)]
CREATE = (
    "CREATE TABLE orders (customer VARCHAR, sku BIGINT, bought BIGINT, stars REAL)",
    "CREATE TABLE products (sku BIGINT, name VARCHAR, maker VARCHAR)",
)
QUERY, ITEMS = "SELECT * FROM orders", "SELECT * FROM products"


@pytest.fixture(params=["sqlite", "duckdb"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a database with a log and items."""
    path = tmp_path / f"shop.{request.param}"
    connection: Any = sqlite3.connect(path) if request.param == "sqlite" else duckdb.connect(path)
    for statement in CREATE:
        connection.execute(statement)
    connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", ORDERS)
    connection.executemany("INSERT INTO products VALUES (?, ?, ?)", PRODUCTS)
    connection.commit()
    connection.close()
    return f"{request.param}:///{path}"


def _read(uri: str, query: str, items_query: str | None = ITEMS, **settings: Any) -> Dataset:
    return Dataset.from_raw_log(read_query(uri, query, items_query=items_query, **{"columns": NAMES, **settings}))


def test_a_log_and_items(uri: str) -> None:
    dataset = _read(uri, QUERY, licence="ours")
    assert dataset.interactions.rows() == [(user, str(item), at, stars) for user, item, at, stars in ORDERS]
    assert dataset.items.rows() == [("7", "Seven: 100% :cotton", "M"), ("8", "Eight", None)]
    assert (dataset.name, dataset.info["licence"]) == ("shop", "ours")
    assert dataset.info["source"] in ("sqlite query", "DuckDB query")


def test_titles_in_the_log_and_characters_that_drivers_may_read_as_parameters(uri: str) -> None:
    query = "SELECT orders.*, name FROM orders JOIN products USING (sku) WHERE name <> ':x %s %(y)s ?'"
    assert _read(uri, query, None).titles == {"7": "Seven: 100% :cotton", "8": "Eight"}


def test_items_in_a_file(uri: str, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("sku,name\n7,Seven\n")
    source = read_query(uri, QUERY, tmp_path / "items.csv", columns=NAMES)
    assert Dataset.from_raw_log(source).titles == {"7": "Seven"}
    with pytest.raises(LorarecError, match="from a file or from items_query"):
        read_query(uri, QUERY, tmp_path / "items.csv", items_query=ITEMS, columns=NAMES)


def test_the_order_of_rows_must_be_that_of_the_query(uri: str) -> None:
    options = TableFormat(order="file")
    with pytest.raises(LorarecError, match="needs a query with ORDER BY"):
        _read(uri, QUERY, options=options)
    columns = Columns(user="customer", item="sku", rating="stars", title="name")
    ordered = _read(uri, f"{QUERY} ORDER BY bought DESC", columns=columns, options=options)
    assert ordered.history("ann") == ["8", "7"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT nothing FROM orders", "query: .*refused it: .*nothing"),
        ("SELEC", "query: .*refused it: .*SELEC"),
        ("DROP TABLE orders", "query: .*refused it: .*read-?only"),
        ("DELETE FROM orders", "query: .*refused it: .*read-?only"),
        ("SELECT * FROM orders WHERE sku = 9", "query has no rows"),
        ("SELECT customer, sku FROM orders", "query: no column 'bought' for timestamp"),
        ("SELECT customer, NULL AS sku, bought, stars FROM orders", "query: row 1 has no item_id"),
        (
            "SELECT customer, sku * 1e16 AS sku, bought, stars FROM orders",
            r"query: row 1 has item_id 7e\+?16 as a number of type Float64",
        ),
    ],
)
def test_refusals(uri: str, query: str, message: str) -> None:
    with pytest.raises(LorarecError, match=message) as caught:
        _read(uri, query)
    assert "\n" not in str(caught.value)
    assert len(_read(uri, QUERY).interactions) == 3


def test_mixed_ids_of_sqlite(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE log (user_id, item_id, timestamp, title)")
        connection.executemany("INSERT INTO log VALUES (?, 'a', 1, 'A')", [(7,), ("7",)])
    with pytest.raises(LorarecError, match="such as 7 in row 1 and '7' in row 2"):
        read_query(f"sqlite:///{tmp_path}/shop.db", "SELECT * FROM log")


def test_types_of_duckdb() -> None:
    values = "(1::HUGEINT << 62) + 1 AS user_id, 'x'::ENUM ('x') AS item_id, 'X' AS title, INTERVAL 1 DAY AS age"
    query = f"SELECT {values}, '2024-05-01 12:00:00+02'::TIMESTAMPTZ AS timestamp, 4.5::DECIMAL(3, 1) AS rating"
    dataset = Dataset.from_raw_log(read_query("duckdb://", query))
    assert dataset.interactions.rows() == [(str(2**62 + 1), "x", 1714557600, 4.5)]
    with pytest.raises(LorarecError, match="query: row 1 has timestamp '1 day', which cannot be read"):
        read_query("duckdb://", query, columns=Columns(time="age"))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "postgresql://anna:s3cret@127.0.0.1:1/shop?application_name=t0ken",
            "postgresql://127.0.0.1:1/shop refused it",
        ),
        ("postgresql://anna:s3cret@127.0.0.1:five/shop", r"127.0.0.1:five/shop is not a usable connection"),
        ("postgresql://anna:s3/cret@127.0.0.1:1/shop", r"^(query: )?postgresql://127.0.0.1:1/shop (refused|is not)"),
        ("nothing://anna:s3cret@host/shop?token=t0ken", "nothing://host/shop is not a usable connection"),
        ("duckdb:///missing/shop.db?motherduck_token=t0ken", "cannot be opened"),
        ("sqlite:///missing.db?password=s3cret", "there is no file 'missing.db'"),
        ("shop.db", "a query needs a connection: give a URI such as postgresql://"),
    ],
)
def test_connections_that_fail_name_no_secrets(uri: str, message: str) -> None:
    with pytest.raises(LorarecError, match=message) as caught:
        read_query(uri, QUERY)
    error = str(caught.value)
    assert "anna" not in error
    assert "t0ken" not in error
    assert "cret" not in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("module", "uri", "extra"), [("sqlalchemy", "sqlite:///x.db", "sql"), ("duckdb", "duckdb://", "duckdb")]
)
def test_missing_libraries_are_named(module: str, uri: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LorarecError, match=rf"pip install 'lorarec\[{extra}\]'"):
        read_query(uri, QUERY)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(LorarecError, match=r"postgresql\+psycopg2://host/shop needs psycopg2 to be read"):
        read_query("postgresql+psycopg2://host/shop", QUERY)


def test_duckdb_needs_no_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    query = "SELECT 1 AS user_id, 2 AS item_id, 3 AS timestamp, 'T' AS title"
    assert Dataset.from_raw_log(read_query("duckdb://", query)).titles == {"2": "T"}
