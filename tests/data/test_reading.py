"""Lines, records and tables from plain and gzipped files; damaged ones are named."""

import gzip
import re
from pathlib import Path

import pytest

from lorarec.data import reading
from lorarec.data.reading import first_line, line_blocks, read_json_lines, records
from lorarec.data.tables import open_table
from lorarec.errors import LorarecError


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_are_whole_numbered_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool, block: int
) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", block)
    text = b"one\ntwo\n\nfour\nfive"
    path = tmp_path / "lines"
    path.write_bytes(gzip.compress(text) if zipped else text)
    lines: dict[int, bytes] = {}
    for number, content in line_blocks(path):
        lines |= {number + offset: line for offset, line in enumerate(content.removesuffix(b"\n").split(b"\n"))}
    assert lines == {1: b"one", 2: b"two", 3: b"", 4: b"four", 5: b"five"}
    assert first_line(path) == "one"


def test_records_are_json_or_python_literals_but_never_code(tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    path.write_text("{\"asin\": \"a\", \"x\": null}\n{'asin': 'b', 'title': \"It's\", 'x': None}\n\n")
    assert list(records(path)) == [(1, {"asin": "a", "x": None}), (2, {"asin": "b", "title": "It's", "x": None})]
    for line in ("{'asin': __import__('os').getcwd()}", "[1]", "{'asin': ", "(" * 5000):
        path.write_text(f"{{}}\n{line}\n")
        with pytest.raises(LorarecError, match=r"meta\.json: line 2 is neither a JSON object nor a Python literal"):
            list(records(path))


def test_json_lines_give_text_columns(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text('{"u": "a", "t": 5, "long": "x"}\n{"u": 7, "t": "6"}\n')
    assert read_json_lines(path, ["u", "t"]).rows() == [("a", "5"), ("7", "6")]
    path.write_text("{'u': 'a', 't': 5}\n{'u': 'b'}\n")
    assert read_json_lines(path, ["u", "t"]).rows() == [("a", "5"), ("b", None)]
    with pytest.raises(LorarecError, match=r"no field 'user' \(the first line has u, t\)"):
        read_json_lines(path, ["user"])
    path.write_text('{"u": "a"}\n{"u": \n')
    with pytest.raises(LorarecError, match="line 2 is neither"):
        read_json_lines(path, ["u"])


@pytest.mark.parametrize("name", ["log.csv.gz", "log.jsonl.gz"])
def test_truncated_and_damaged_gzip(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    line = '{"user_id": "%d"}' if "jsonl" in name else "%d,5"
    content = gzip.compress(("user_id,b\n" * ("csv" in name) + "\n".join(line % k for k in range(5000))).encode())
    path.write_bytes(content[:-300])
    for read in (lambda: open_table(path).read({"user": "user_id"}), lambda: list(line_blocks(path))):
        with pytest.raises(LorarecError, match=f"{name} is a truncated gzip file: download it again"):
            read()
    path.write_bytes(content[:40] + b"garbage" * 20 + content[200:])
    with pytest.raises(LorarecError, match="damaged gzip"):
        list(line_blocks(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", b"", "is empty"),
        ("log.csv", "a,b\n1,Mis\u00e9\n".encode("latin-1"), "is not UTF-8 text"),
        ("log.csv", b"a,b\n1,2\n1,2,3\n", "cannot be read as a table"),
        ("log.parquet", b"PAR1", "cannot be read as a table"),
        ("log.table", b"", r"has an unknown suffix: rename it so that it ends in one of \.csv"),
        ("log.xlsx", b"", "is a spreadsheet: save its sheet as CSV"),
        ("log.csv.zst", b"", "is compressed, and only gzip is read: unpack it, or compress it with gzip"),
        ("log.tar.gz", b"", "is compressed, and only gzip is read"),
        ("log.jsonl", b'{"a": 1}\n{"a"\n', "cannot be read as a table"),
    ],
)
def test_unreadable_tables(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LorarecError, match=message) as caught:
        open_table(path).read({"a": "a"})
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match="does not exist"):
        open_table(tmp_path / "log.csv")
    with pytest.raises(LorarecError, match=r"cannot read .*log: No such file"):
        first_line(tmp_path / "log")


def test_progress_bar_does_not_change_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lines.gz"
    path.write_bytes(gzip.compress(b"a\nb\n"))
    assert list(line_blocks(path, progress=True)) == list(line_blocks(path))


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("latin-1", "is not UTF-8 text: line 3 has the byte 0xe9 after '2,b,2,Caf'"),
        ("utf-16", "is UTF-16 text: convert it, for example with `iconv -f UTF-16 -t UTF-8`"),
        ("utf-16-le", "seems to be UTF-16LE text"),
        ("utf-16-be", "seems to be UTF-16BE text"),
        ("utf-32", "is UTF-32 text"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, encoding: str, said: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("user_id,item_id,timestamp,title\n1,a,1,Tea\n2,b,2,Caf\u00e9\n".encode(encoding))
    with pytest.raises(LorarecError, match=re.escape(said)):
        open_table(path).read({"title": "title"})
