"""Any table, with the user's own column names."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from lorarec.data import Dataset, read_table
from lorarec.data.sources.table import Columns
from lorarec.data.tables import Ids, TableFormat
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
    dataset = Dataset.from_raw_log(read_table(log, catalogue, columns=NAMES, licence="ours"))
    assert dataset.interactions.rows() == EXPECTED
    assert dataset.titles == {"7": "Seven", "8": "Eight"}
    assert dataset.items["maker"].to_list() == ["M", None]
    assert dataset.items.schema["price"] == pl.String
    assert dataset.name == "log"
    assert dataset.info["licence"] == "ours"


@pytest.mark.parametrize("name", ["rating", "Rating", " RATING "])
def test_ratings_are_found_without_regard_to_case_and_space(tmp_path: Path, name: str) -> None:
    (tmp_path / "log.csv").write_text(f"user_id,item_id,timestamp,{name}\nu,i,1,4\n")
    assert read_table(tmp_path / "log.csv").interactions["rating"].to_list() == [4.0]


def test_separator_and_no_header(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("ann;7;1400000000\nbob;7;1400000001\n")
    columns = Columns(user="column_1", item="column_2", time="column_3")
    rows = read_table(tmp_path / "log.csv", columns=columns, options=TableFormat(";", header=False)).interactions
    assert rows.rows() == [("ann", "7", 1400000000), ("bob", "7", 1400000001)]


def test_titles_beside_the_interactions(tmp_path: Path) -> None:
    log = LOG.rename({"customer": "user_id", "sku": "item_id", "bought": "timestamp", "stars": "rating"})
    log = log.with_columns(title=pl.Series([None, "Eight", "Seven"]))
    dataset = Dataset.from_raw_log(read_table(_write(log, tmp_path / "log.parquet")))
    assert dataset.titles == {"7": "Seven", "8": "Eight"}
    assert dataset.interactions.rows() == EXPECTED


def test_a_column_of_titles_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    log = _write(LOG, tmp_path / "log.csv")
    with pytest.raises(LorarecError, match=r"no column 'name' for title: name the right one with title="):
        read_table(log, columns=NAMES)


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
    dataset = Dataset.from_raw_log(read_table(log, tmp_path / "movies.dat", columns=NAMES))
    assert dataset.items.rows() == [("7", "Misérables, Les", "Drama, War"), ("8", "Eight", "Action")]
    assert dataset.name == tmp_path.name.lower().replace("_", "-")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(), r"no column 'user_id' for user_id: name the right one with user=.* \(there are customer, sku"),
        (Columns("customer", "sku", "bought", rating="score"), "no column 'score' for rating.*rating="),
        (Columns("customer", "sku", "bought", title="label"), "catalogue.csv: no column 'label' for title.*title="),
        (Columns("customer", "sku", "stars"), "line 4 has no timestamp"),
        (Columns("customer", "sku", "customer"), "line 2 has timestamp 'ann', which cannot be read"),
    ],
)
def test_wrong_columns(tmp_path: Path, columns: Columns, message: str) -> None:
    log, catalogue = _write(LOG, tmp_path / "log.csv"), _write(CATALOGUE, tmp_path / "catalogue.csv")
    with pytest.raises(LorarecError, match=message):
        read_table(log, catalogue, columns=columns)


def _files(folder: Path, **texts: str) -> list[Path]:
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return [folder / f"{name}.csv" for name in texts]


def test_ids_that_have_other_names_in_the_two_tables(tmp_path: Path) -> None:
    log, items = _files(tmp_path, log="user_id,artistID,timestamp\nu,12,1\n", items="id,title\n12,A\n")
    columns = Columns(item="artistID", items_id="id")
    assert Dataset.from_raw_log(read_table(log, items, columns=columns)).titles == {"12": "A"}
    with pytest.raises(
        LorarecError, match=r"items\.csv: no column 'artistID' for item_id: name the right one with items_id="
    ):
        read_table(log, items, columns=Columns(item="artistID"))


ALIKE = [
    (["12.0", "13.0"], ["12", "13"], "numbers"),
    (["12", "13"], ["12.0", "13.0"], "numbers"),
    (["12", "13"], ["0012", "0013"], "numbers"),
    (["007", "8"], ["7", "8"], "numbers"),
    (["a ", "b"], ["a", "b"], "trimmed"),
    (["a", "b"], ["a", " b"], "trimmed"),
    (["12 ", "13"], ["12", "13"], "trimmed"),
]


@pytest.mark.parametrize(("of_log", "of_items", "how"), ALIKE)
def test_ids_that_match_but_for_how_they_are_written(
    tmp_path: Path, of_log: list[str], of_items: list[str], how: Ids
) -> None:
    log, items = _files(
        tmp_path,
        log="user_id,item_id,timestamp\n" + "".join(f"u,{item},{at}\n" for at, item in enumerate(of_log)),
        items="item_id,title\n" + "".join(f"{item},{name}\n" for item, name in zip(of_items, "AB", strict=True)),
    )
    one, other = next((a, b) for a, b in zip(of_log, of_items, strict=True) if a != b)
    message = (
        f"log.csv has item_id '{one}' and .*items.csv has '{other}': . of 2 ids differ only in .*use ids=\"{how}\""
    )
    with pytest.raises(LorarecError, match=message):
        read_table(log, items)
    dataset = Dataset.from_raw_log(read_table(log, items, options=TableFormat(ids=how)))
    assert list(dataset.titles.values()) == ["A", "B"]
    imported = Dataset.from_raw_log(read_table(log, items, options=TableFormat(ids="as-written")), keep_untitled=True)
    assert set(imported.titles) == set(of_log)


def test_ids_of_numbers_that_became_floats_in_parquet(tmp_path: Path) -> None:
    LOG.with_columns(pl.col("sku").cast(pl.Float64)).write_parquet(tmp_path / "log.parquet")
    CATALOGUE.write_parquet(tmp_path / "items.parquet")
    with pytest.raises(
        LorarecError, match=r"has item_id '7.0' and .*has '7': 2 of 2 ids differ only in the notation of the number"
    ):
        read_table(tmp_path / "log.parquet", tmp_path / "items.parquet", columns=NAMES)


def test_items_that_are_really_absent_are_not_alike(tmp_path: Path) -> None:
    log, items = _files(tmp_path, log="user_id,item_id,timestamp\nu,1,1\nu,2,2\n", items="item_id,title\n1,A\n")
    assert Dataset.from_raw_log(read_table(log, items)).titles == {"1": "A"}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl", ".csv.gz"])
def test_a_log_without_times_is_in_the_order_of_its_rows(tmp_path: Path, suffix: str) -> None:
    log = pl.DataFrame(
        {"user_id": ["b", "a", "b", "a"], "item_id": ["x", "y", "z", "x"], "title": ["X", "Y", "Z", "X"]}
    )
    path = _write(log, tmp_path / f"log{suffix}")
    with pytest.raises(LorarecError, match=r"no column 'timestamp' for timestamp.*use order=\"file\""):
        read_table(path)
    dataset = Dataset.from_raw_log(read_table(path, options=TableFormat(order="file")))
    rows = dataset.interactions.select("user_id", "item_id", "timestamp").rows()
    assert rows == [("a", "y", 1), ("a", "x", 3), ("b", "x", 0), ("b", "z", 2)]


def test_rows_with_bad_times_are_counted_and_named(tmp_path: Path) -> None:
    rows = "".join(f"u,i{k},{1_700_000_000 + k},T\n" for k in range(9))
    (log,) = _files(tmp_path, log=f"user_id,item_id,timestamp,title\nu,x,253402300799,T\n{rows}u,y,soon,T\nu,z,,T\n")
    with pytest.raises(LorarecError, match="line 12 has timestamp 'soon'"):
        read_table(log)
    dataset = Dataset.from_raw_log(read_table(log, options=TableFormat(bad_times="drop")))
    report = dataset.info["import"]
    assert report["rows_with_bad_times_dropped"] == 3
    assert report["first_of_them"] == ["line 2", "line 12", "line 13"]
    assert dataset.interactions["timestamp"].to_list() == [1_700_000_000 + k for k in range(9)]


@pytest.mark.parametrize(
    ("text", "columns", "hint"),
    [
        ("user_id;item_id;timestamp\nu;i;1\n", Columns(), r"fields seem to be separated by ';': use separator=';'"),
        ("user_id\titem_id\ttimestamp\nu\ti\t1\n", Columns(), r"use separator='\\t'"),
        ("1,2,978300760\n3,4,978300761\n", Columns(), "the first line seems to contain values: use header=False"),
        ("'user_id','item_id','timestamp'\n'u','i','1'\n", Columns(), 'the names are in quotes: use quote="single"'),
        ("user_id,item_id,when\nu,i,1\n", Columns(), 'use order="file"'),
    ],
)
def test_hints_at_why_a_column_is_not_found(tmp_path: Path, text: str, columns: Columns, hint: str) -> None:
    (log,) = _files(tmp_path, log=text)
    with pytest.raises(LorarecError, match=hint):
        read_table(log, columns=columns)


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp", "rating", "title"])
def test_lists_and_structures_are_no_values(tmp_path: Path, column: str) -> None:
    row: dict[str, object] = {"user_id": "u", "item_id": "i", "timestamp": 1, "rating": 1.0, "title": "T"}
    for value, kind in (([1], "List"), ({"a": 1}, "Struct")):
        pl.DataFrame([{**row, column: value}]).write_parquet(tmp_path / "log.parquet")
        with pytest.raises(LorarecError, match=f"column '{column}' has type {kind}"):
            read_table(tmp_path / "log.parquet")
        if column in ("item_id", "title"):
            pl.DataFrame([row]).drop("title").write_parquet(tmp_path / "plain.parquet")
            with pytest.raises(LorarecError, match=f"log.parquet: column '{column}' has type {kind}"):
                read_table(tmp_path / "plain.parquet", tmp_path / "log.parquet")


def test_recbole_files(tmp_path: Path) -> None:
    (tmp_path / "ml.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t7\t4\t978300760\n"
    )
    (tmp_path / "ml.item").write_text('item_id:token\tmovie_title:token_seq\tgenre:token_seq\n7\t"Heroes\tDrama War\n')
    source = read_table(tmp_path / "ml.inter", tmp_path / "ml.item", columns=Columns(title="movie_title"))
    assert source.interactions.rows() == [("1", "7", 978300760, 4.0)]
    assert source.items.to_dicts() == [{"item_id": "7", "title": '"Heroes', "genre": "Drama War"}]


def test_a_log_without_rows(tmp_path: Path) -> None:
    (log,) = _files(tmp_path, log="user_id,item_id,timestamp,title\n\n")
    with pytest.raises(LorarecError, match=r"log\.csv has no rows"):
        read_table(log)


def test_rows_of_items_without_an_id_are_no_items(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,7,1\n")
    (tmp_path / "items.csv").write_text('item_id,title\n7,Chair\n ,Ghost\n"",Ghost\n,Ghost\n9,Desk\n')
    raw = read_table(tmp_path / "log.csv", tmp_path / "items.csv")
    assert Dataset.from_raw_log(raw, keep_unseen=True).titles == {"7": "Chair", "9": "Desk"}


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (TableFormat(separator=";"), "option separator"),
        (TableFormat(quote="double"), "option quote"),
        (TableFormat(header=False), "header=False"),
        (TableFormat(separator=";", header=False), "option separator and header=False"),
    ],
)
def test_options_of_text_need_a_table_of_text(tmp_path: Path, suffix: str, options: TableFormat, named: str) -> None:
    log, catalogue = _write(LOG, tmp_path / f"log{suffix}"), _write(CATALOGUE, tmp_path / f"catalogue{suffix}")
    with pytest.raises(LorarecError, match=f"^{named} would have no effect on .*log{suffix} and .*catalogue{suffix}"):
        read_table(log, catalogue, columns=NAMES, options=options)
    text = tmp_path / "catalogue.csv"
    CATALOGUE.write_csv(text, separator=";")
    if options == TableFormat(separator=";"):
        assert Dataset.from_raw_log(read_table(log, text, columns=NAMES, options=options)).titles["7"] == "Seven"


def test_formats_of_text_need_values_that_are_text(tmp_path: Path) -> None:
    typed = LOG.with_columns(pl.col("bought").str.to_datetime(time_zone="UTC"))
    log = _write(typed, tmp_path / "log.parquet")
    with pytest.raises(LorarecError, match=r"time_format would have no effect on column 'bought', whose type is Datet"):
        read_table(log, columns=replace(NAMES, title="title"), options=TableFormat(time_format="%d.%m.%Y"))
    with pytest.raises(
        LorarecError, match="option decimal would have no effect on column 'stars', whose type is Int64"
    ):
        read_table(log, columns=replace(NAMES, title="title"), options=TableFormat(decimal="comma"))
    log = _write(LOG.drop("stars"), tmp_path / "unrated.csv")
    with pytest.raises(LorarecError, match="option decimal is for ratings, and there are none"):
        read_table(log, columns=replace(NAMES, rating=None, title="title"), options=TableFormat(decimal="comma"))


def test_a_column_of_times_and_the_order_of_the_file_exclude_each_other(tmp_path: Path) -> None:
    log = _write(LOG, tmp_path / "log.csv")
    with pytest.raises(LorarecError, match='option time has no use with order="file"'):
        read_table(log, columns=replace(NAMES, title="title"), options=TableFormat(order="file"))


def test_a_separator_that_only_one_of_the_tables_has_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user_id;item_id;timestamp\nu;i;1\n")
    (tmp_path / "items.csv").write_text("item_id,title\ni,T\n")
    with pytest.raises(LorarecError, match=r"separated by ',', but separator=';' holds for both tables: write one of"):
        read_table(log, tmp_path / "items.csv", options=TableFormat(separator=";"))
