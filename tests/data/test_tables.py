"""Formats of tables, which are recognised by name and content, and their columns."""

import gzip
import json
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorarec.data.tables import TableFormat, open_table
from lorarec.errors import LorarecError

ROWS = [("u1", "i1", "1"), ("u2", "i2", "2"), ("u3", "i3", "3")]
NAMES = ["user_id", "item_id", "timestamp"]


def _text(separator: str, names: list[str] = NAMES) -> str:
    return "\n".join(separator.join(row) for row in [names, *ROWS]) + "\n"


TYPED = ["user_id:token", "item_id:token", "timestamp:float"]
RECORDS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.inter", _text("\t", TYPED)),
        ("log.inter", _text(",", TYPED)),
        ("log.dat", _text("::")),
        ("log.dat", _text("\t")),
        ("log.txt", _text("||")),
        ("log.txt", _text("|")),
        ("log.txt", _text(";")),
        ("log.txt", _text(",")),
        ("log.txt", _text(" ")),
        ("log", _text(",")),
        ("LOG.CSV", _text(",")),
        ("log.tsv", _text("\t")),
        ("log.txt", "\n".join(map(json.dumps, RECORDS))),
        ("log.json", "\n".join(map(json.dumps, RECORDS))),
        ("log.jsonl", "\n" + "\n\n".join(map(json.dumps, RECORDS)) + "\n\n"),
        ("log.json", json.dumps(RECORDS)),
        ("log.json", "\ufeff \n" + json.dumps(RECORDS, indent=2)),
        ("log.dat", json.dumps(RECORDS)),
    ],
)
def test_formats_are_recognised_by_content(tmp_path: Path, name: str, text: str, zipped: bool) -> None:
    path = tmp_path / (name + ".gz" * zipped)
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    table = open_table(path)
    assert sorted(table.names) == sorted(NAMES)
    assert table.read({name: name for name in NAMES})[0].rows() == ROWS


def test_a_separator_inside_of_titles_does_not_mislead(tmp_path: Path) -> None:
    path = tmp_path / "items.item"
    path.write_text("item_id:token\ttitle:token_seq\n1\tA, b; c | d\n2\tE::f\n")
    assert open_table(path).read({"t": "title"})[0]["t"].to_list() == ["A, b; c | d", "E::f"]
    path = tmp_path / "items.txt"
    path.write_text('item_id,title\n1,"A, b"\n2,C\n')
    assert open_table(path).read({"t": "title"})[0]["t"].to_list() == ["A, b", "C"]


@pytest.mark.parametrize(
    "line", ["{'user_id': 1}", '{"user_id": NaN}', '{"user_id": 1', '{"user_id": 1}{"user_id": 2}', "[1]"]
)
def test_lines_that_are_not_json_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "log.jsonl").write_text(f'\ufeff{{"user_id": 1}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(LorarecError, match=r"log\.jsonl cannot be read as a table: line 3 is not a JSON object"):
        open_table(tmp_path / "log.jsonl").read({"user_id": "user_id"})


@pytest.mark.parametrize("folders", [[""], ["day=1", "day=2"]])
def test_folders_of_parquet_parts(tmp_path: Path, folders: list[str]) -> None:
    whole = pl.DataFrame(ROWS, schema=NAMES, orient="row")
    for number in range(3):
        folder = tmp_path / "log" / folders[number % len(folders)]
        folder.mkdir(parents=True, exist_ok=True)
        whole[number : number + 1].write_parquet(folder / f"part-{number}.snappy.parquet")
        (folder / "_SUCCESS").touch()
    read = open_table(tmp_path / "log").read({name: name for name in NAMES})[0]
    assert sorted(read.rows()) == ROWS


@pytest.mark.parametrize(
    ("written", "meant"),
    [("\\t", "\t"), ("\t", "\t"), ("::", "::"), ("||", "||"), ("\\x01", "\x01"), ("\u00a6", "\u00a6"), (";", ";")],
)
def test_separators_as_they_are_typed(tmp_path: Path, written: str, meant: str) -> None:
    assert TableFormat(separator=written).separator == meant
    path = tmp_path / "log.csv"
    path.write_text(_text(meant))
    assert open_table(path, TableFormat(separator=written)).read({"t": "timestamp"})[0]["t"].to_list() == [
        "1",
        "2",
        "3",
    ]


@pytest.mark.parametrize("separator", ["", "\n", "\\n", '"', "a'b", "\\", "\\q\n", "\0"])
def test_separators_that_cannot_be(separator: str) -> None:
    with pytest.raises(LorarecError, match="separator"):
        TableFormat(separator=separator)


@pytest.mark.parametrize("name", [" item_id", "item_id  ", "Item_ID", "\ufeffitem_id", "ITEM_ID\u00a0"])
def test_columns_are_found_without_regard_to_case_and_stray_space(tmp_path: Path, name: str) -> None:
    (tmp_path / "log.csv").write_text(f"user_id,{name},timestamp\nu,i,1\n", encoding="utf-8")
    pl.DataFrame({"user_id": ["u"], name: ["i"]}).write_parquet(tmp_path / "log.parquet")
    for path in (tmp_path / "log.csv", tmp_path / "log.parquet"):
        table = open_table(path)
        assert table.read({"x": table.find("item_id") or ""})[0]["x"].to_list() == ["i"]
        assert table.find("item") is None


def test_several_columns_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("title,Title,a,a\n1,2,3,4\n")
    table = open_table(tmp_path / "log.csv")
    assert table.find("Title") == "Title"
    for name in ("TITLE", "a"):
        with pytest.raises(LorarecError, match=f"log.csv has 2 columns called '{name}': rename all but one"):
            table.find(name)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([["i"]], r"List\(String\)"),
        ([{"id": 1}], r"Struct\(\{'id': Int64\}\)"),
        ([[[1]]], r"List\(List\(Int64\)\)"),
        ([[{"a": 1}]], "List"),
        ([{"$date": "2023"}], "Struct"),
    ],
)
def test_columns_of_several_values_are_refused_by_name_and_type(
    tmp_path: Path, values: list[object], kind: str
) -> None:
    frame = pl.DataFrame({"user_id": ["u"], "item_id": values})
    frame.write_parquet(tmp_path / "log.parquet")
    (tmp_path / "log.json").write_text(json.dumps(frame.to_dicts()))
    frame.write_ndjson(tmp_path / "log.jsonl")
    for path in tmp_path.iterdir():
        table = open_table(path)
        table.require_single_values(["user_id"])
        with pytest.raises(LorarecError, match=f"column 'item_id' has type {kind}") as caught:
            table.require_single_values(["item_id"])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", b"PK\x03\x04rest", "is a zip archive or a spreadsheet"),
        ("log.json", b"[1, 2]", "row 1 of the array is not a JSON object"),
        ("log.json", b'[{"a": 1}, {"a": }]', r"is not a JSON array: .* line 1 column 18"),
        ("log.json", b"[]", "is empty"),
        ("log.jsonl", b" \n", "is empty"),
        ("log.csv", b"a,b\r1,2\r3,4\r", "ends its lines with carriage returns alone"),
        ("log.json", b"[" * 100_000, "is not a JSON array"),
        ("log.jsonl", b'{"a": 1}\n\n{"a": 1\n', "cannot be read as a table: line 3 is not a JSON object"),
        ("log.jsonl", b'{"a": 1}\n[2]\n', "cannot be read as a table: line 2 is not a JSON object"),
        ("log.txt", b"abc\ndef\n", 'the separator of its fields cannot be detected: name it, as in separator=";"'),
        ("log.txt", b"", "is empty"),
        ("log.txt", b"a\tb\n1\t2\n3\n", "line 3 has 1 field, not 2"),
        ("log.pq", b"PAR1", "cannot be read as a table"),
    ],
)
def test_unreadable_files_are_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LorarecError, match=message) as caught:
        open_table(path).read({"a": "a"})
    assert "\n" not in str(caught.value)


def test_folders_that_hold_no_table(tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match="is a folder without Parquet files"):
        open_table(tmp_path)
    (tmp_path / "dataset.json").touch()
    with pytest.raises(LorarecError, match="is already a dataset folder"):
        open_table(tmp_path)


def test_places_of_rows(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('\n{"a": 1}\n\n{"a": 2}\n')
    assert open_table(tmp_path / "log.jsonl").read({"a": "a"})[1](1) == "line 4"
    pl.DataFrame({"a": [date(2023, 1, 1)]}).write_parquet(tmp_path / "log.parquet")
    assert open_table(tmp_path / "log.parquet").read({"a": "a"})[1](0) == "row 1"


def test_text_that_is_stored_as_bytes(tmp_path: Path) -> None:
    pl.DataFrame({"a": [b"x"], "b": [b"\xff"]}).write_parquet(tmp_path / "log.parquet")
    table = open_table(tmp_path / "log.parquet")
    assert table.read({"a": "a"})[0]["a"].to_list() == ["x"]
    with pytest.raises(LorarecError, match="is not UTF-8 text"):
        table.read({"b": "b"})


def test_parquet_with_zones_that_have_no_name(tmp_path: Path) -> None:
    times = pa.array([1400000000], pa.timestamp("s", "+05:30"))
    pq.write_table(pa.table({"a": times}), tmp_path / "log.parquet")
    with pytest.raises(LorarecError, match=r"log\.parquet has times in a zone that is not in the Time Zone Database"):
        open_table(tmp_path / "log.parquet").read({"a": "a"})
