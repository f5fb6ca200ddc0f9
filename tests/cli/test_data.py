"""The group `data`: import, describe, split."""

import json
import sqlite3
from pathlib import Path

import polars as pl
import pytest

from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from tests.command_line import run


def _run(*words: object) -> str:
    return run("data", *words).stdout


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 20 users with 4 of 50 items each, titles in it; the second ten users share ten items."""
    items = [k if k < 40 else 40 + k % 10 for k in range(80)]
    rows = [f"u{k // 4},i{item},{1_400_000_000 + k},Title {item}" for k, item in enumerate(items)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,title", *rows]))
    return tmp_path / "log.csv"


def test_import_describe_split(log: Path, tmp_path: Path) -> None:
    assert "interactions" in _run("import", "table", log, "--out", tmp_path / "shop")
    figures = json.loads(_run("describe", tmp_path / "shop", "--json", "--plot", tmp_path / "shop.png"))
    assert (figures["users"], figures["items"], figures["interactions"]) == (20, 50, 80)
    assert (tmp_path / "shop.png").is_file()
    assert "title coverage" in _run("describe", tmp_path / "shop")
    drawn = json.loads(
        _run("split", tmp_path / "shop", "--new-items", "0.2", "--negatives", "9", "--seed", "3", "--json")
    )
    assert drawn["options"] == {"protocol": "leave-one-out", "new_items": 0.2, "negatives": 9, "seed": 3}
    assert Split.load(tmp_path / "shop" / "split").fingerprint == drawn["fingerprint"]
    with pytest.raises(LorarecError, match="exists already"):
        _run("split", tmp_path / "shop")
    assert "test warm" in _run(
        "split", tmp_path / "shop", "--protocol", "global-time", "--negatives", "5", "--overwrite"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "users"], "option --by needs option --without"),
        (["--items-id", "id"], "option --items-id needs option --items"),
        (["--keep-unseen", "--k-core", "2"], "options --keep-unseen and --k-core exclude each other"),
        (["--order", "file", "--time-format", "%d.%m.%Y"], "options --time-format and --bad-times have no use with"),
        (["--order", "file", "--bad-times", "drop"], "options --time-format and --bad-times have no use with"),
    ],
)
def test_options_without_effect(log: Path, tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        _run("import", "table", log, *words, "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_import_of_queries(log: Path, tmp_path: Path) -> None:
    query = f"SELECT * FROM read_csv('{log}')"
    titles = "SELECT item_id, title FROM (VALUES ('i0', 'Zero')) AS items (item_id, title)"
    words = ("import", "table", "duckdb://", "--query", query)
    _run("import", "table", log, "--out", tmp_path / "of-file")
    _run(*words, "--out", tmp_path / "of-query")
    assert Dataset.load(tmp_path / "of-query").fingerprint == Dataset.load(tmp_path / "of-file").fingerprint
    _run(*words, "--items-query", titles, "--out", tmp_path / "one")
    assert Dataset.load(tmp_path / "one").titles == {"i0": "Zero"}
    with pytest.raises(LorarecError, match="items come from a file or from --items-query"):
        _run(*words, "--items-query", titles, "--items", log, "--out", tmp_path / "new")
    with pytest.raises(LorarecError, match="option --items-query needs option --query"):
        _run("import", "table", log, "--items-query", titles, "--out", tmp_path / "new")
    with pytest.raises(LorarecError, match="--order file needs a query with ORDER BY"):
        _run(*words, "--order", "file", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_connections_are_neither_shown_nor_recorded(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE log AS SELECT 1 user_id, 2 item_id, 3 timestamp, 'T' title")
    uri = f"sqlite:///{tmp_path}/shop.db?timeout=4242"
    shown = run("data", "import", "table", uri, "--query", "SELECT * FROM log", "--out", tmp_path / "shop", "--json")
    assert json.loads(shown.stdout)["source"] == "sqlite query"
    assert "4242" not in shown.stdout + shown.stderr + (tmp_path / "shop" / "dataset.json").read_text()


def test_import_options(log: Path, tmp_path: Path) -> None:
    info = json.loads(_run("import", "table", log, "--out", tmp_path / "one", "--name", "one", "--json"))
    assert info["name"] == "one"
    assert info["import"]["rows_read"] == 80
    (tmp_path / "half.csv").write_text("\n".join(log.read_text().splitlines()[:41]))
    info = json.loads(_run("import", "table", tmp_path / "half.csv", "--out", tmp_path / "First half", "--json"))
    assert info["name"] == "first-half"
    words = (
        "--without",
        tmp_path / "First half",
        "--by",
        "users",
        "--by",
        "interactions",
        "--k-core",
        "2",
        "--keep-untitled",
        "--overwrite",
    )
    info = json.loads(_run("import", "table", log, "--out", tmp_path / "one", *words, "--json"))
    assert info["filters"][0].startswith("without the users of first-half")
    assert info["filters"][1].startswith("without the interactions of first-half")
    assert info["filters"][2] == "2-core"


def test_an_existing_folder_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "precious").touch()
    for words in (["movielens", tmp_path / "none"], ["amazon", tmp_path / "none"], ["table", tmp_path / "none.csv"]):
        with pytest.raises(LorarecError, match="shop exists already: choose another folder or pass --overwrite"):
            _run("import", *words, "--out", tmp_path / "shop")


def test_a_failed_import_leaves_nothing(log: Path, tmp_path: Path) -> None:
    log.write_text(log.read_text() + "\nu9,i9,yesterday,Title 9\n")
    with pytest.raises(LorarecError, match=r"log\.csv: line 82 has timestamp 'yesterday'"):
        _run("import", "table", log, "--out", tmp_path / "shop")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv"]


def test_sample_and_help(tmp_path: Path) -> None:
    info = json.loads(_run("import", "sample", "drama", "--out", tmp_path / "drama", "--json"))
    assert Dataset.load(tmp_path / "drama").info == info
    for verb in (
        ["import"],
        ["import", "table"],
        ["import", "amazon"],
        ["import", "movielens"],
        ["split"],
        ["describe"],
    ):
        assert "Usage" in _run(*verb, "--help")


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("u,i,14.11.2023,T", [], r"line 2 has timestamp '14.11.2023', .* such as --time-format \"%d.%m.%Y\""),
        ("u,i,soon,T", ["--time-format", "%d.%m.%Y"], r"line 2 has timestamp 'soon', .*not have the format '%d.%m.%Y'"),
        ("u,i,1,T", ["--time-format", "%d %Z"], r"--time-format '%d %Z': names of time zones"),
        ("u,i,,T\nv,i,5,T", [], r"line 2 has no timestamp.*--bad-times drop.*--order file"),
        ('u,i,1,"T\nu,i,2,V"', [], r"line 2: .*spans the lines up to 3.*--quote none.*--quote double"),
        ("u,i,1", [], r"line 2 has 3 fields, not 4"),
        ("u,i,1,T", ["--separator", ";"], r"fields seem to be separated by ',': use --separator ','"),
        ("u,i,1,T", ["--separator", ""], r"separator '' cannot separate fields"),
        ("u,i,1,T", ["--no-header"], "no column 'user_id'"),
        ("u,i,1,T", ["--time", "when"], "no column 'when' for timestamp: name the right one with --time.*--order file"),
    ],
)
def test_messages_name_the_line_and_the_options(tmp_path: Path, text: str, words: list[str], message: str) -> None:
    (tmp_path / "log.csv").write_text(f"user_id,item_id,timestamp,title\n{text}\n")
    with pytest.raises(LorarecError, match=message):
        _run("import", "table", tmp_path / "log.csv", "--out", tmp_path / "shop", *words)
    assert not (tmp_path / "shop").exists()


def test_options_of_tables(tmp_path: Path) -> None:
    rows = [f"u{k // 3}\t{k % 5}.0\t{1 + k // 3:02}.11.2023\t4,5" for k in range(15)] + ["u\t1.0\tnever\t1,0", ""]
    (tmp_path / "log.txt").write_text("\n".join(["\ufeffUser\tartistID\tdate\tstars", *rows]))
    (tmp_path / "artists.dat").write_text("id||name\n" + "".join(f'{k}||"Artist {k}\n' for k in range(5)))
    pl.read_csv(tmp_path / "artists.dat", separator="|", quote_char=None).select("id", "name").write_parquet(
        tmp_path / "artists.parquet"
    )
    columns = ["--user", "user", "--item", "artistID", "--items-id", "id", "--time", "date", "--rating", "stars"]
    values = ["--time-format", "%d.%m.%Y", "--ids", "numbers", "--decimal", "comma", "--bad-times", "drop"]
    words = [*columns, *values, "--title", "name", "--k-core", "3", "--json"]
    info = json.loads(
        _run("import", "table", tmp_path / "log.txt", "--items", tmp_path / "artists.parquet", *words, "--separator",
             "\\t", "--quote", "none", "--out", tmp_path / "one")
    )  # fmt: skip
    assert info["counts"] == {"users": 5, "items": 5, "interactions": 15}
    assert info["import"]["rows_with_bad_times_dropped"] == 1
    dataset = Dataset.load(tmp_path / "one")
    assert dataset.titles["3"] == '"Artist 3'
    assert dataset.interactions["rating"].unique().to_list() == [4.5]


def test_rounds_of_a_k_core_are_reported_in_one_line(tmp_path: Path) -> None:
    pairs = [(user, item) for user in "abc" for item in "xyz"] + [
        ("d", "x"),
        ("d", "w"),
        ("e", "w"),
        ("e", "x"),
        ("e", "v"),
    ]
    text = "\n".join(f"{user},{item},1,{item}" for user, item in pairs)
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp,title\n" + text)
    output = _run("import", "table", tmp_path / "log.csv", "--k-core", "3", "--out", tmp_path / "core")
    assert "dropped by k core" in output
    assert "users 2, items 2, interactions 5, rounds 2" in output


def test_help_teaches_how_tables_are_read() -> None:
    output = " ".join(_run("import", "table", "--help").replace("\u2502", " ").split())
    for option in (
        "--time-format",
        "--bad-times",
        "--order",
        "--separator",
        "--quote",
        "--items-id",
        "--ids",
        "--decimal",
    ):
        assert option in output
    for words in ("%d.%m.%Y", "\\t for a tab", "a folder of Parquet files", "ISO 8601", "Titles such as NA"):
        assert words in output


def test_split_at_given_times(log: Path, tmp_path: Path) -> None:
    _run("import", "table", log, "--out", tmp_path / "shop")
    split = ("split", tmp_path / "shop", "--negatives", "5", "--json")
    times = ("--valid-from", "2014-05-13 16:54:10", "--test-from", "1400000071")
    drawn = json.loads(_run(*split, "--protocol", "global-time", *times))
    assert drawn["options"]["cuts"] == [1_400_000_050, 1_400_000_071]
    for words, message in (
        (times, "option --test-from is for protocol global-time, not leave-one-out"),
        (
            ("--protocol", "global-time", "--new-items", "0.2"),
            "option --new-items is for protocol leave-one-out, not global-time",
        ),
        (times[:2], "options --valid-from and --test-from go together: give both"),
        (("--protocol", "global-time", *times[:3], "soon"), "option --test-from must be a time, .* got 'soon'"),
        (
            ("--protocol", "global-time", *times[:3], "2010-01-01"),
            "begins at 2014-05-13 16:54:10, which is not before .* 2010-01-01 00:00:00",
        ),
        (
            ("--protocol", "global-time", *times[:3], "2030-01-01"),
            "with the cuts 2014-05-13 16:54:10 and .* a part is empty",
        ),
    ):
        with pytest.raises(LorarecError, match=message):
            _run(*split, "--overwrite", *words)
