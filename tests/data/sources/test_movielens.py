"""MovieLens in each of its published forms, as tiny folders."""

import zipfile
from pathlib import Path

import polars as pl
import pytest

from lorarec.data import Dataset, read_movielens
from lorarec.errors import LorarecError

RATINGS = [("1", "10", 5.0, 978300760), ("1", "11", 3.5, 978300761), ("2", "10", 4.0, 978300762)]
TITLES = {"10": "Star Wars: Episode IV - A New Hope (1977)", "11": "Misérables, Les (1995)"}


def _folder_100k(folder: Path) -> None:
    (folder / "u.data").write_text("".join(f"{u}\t{i}\t{r:g}\t{t}\n" for u, i, r, t in RATINGS))
    (folder / "u.genre").write_text("unknown|0\nAction|1\nDrama|2\n\n")
    items = f"10|{TITLES['10']}|01-Jan-1977||http://x|0|1|1\n11|{TITLES['11']}|01-Jan-1995||http://y|1|0|0\n"
    (folder / "u.item").write_bytes(items.encode("latin-1"))
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n")


def _folder_1m(folder: Path) -> None:
    (folder / "ratings.dat").write_text("".join(f"{u}::{i}::{r:g}::{t}\n" for u, i, r, t in RATINGS))
    movies = f"10::{TITLES['10']}::Action|Drama\r\n11::{TITLES['11']}::(no genres listed)\r\n"
    (folder / "movies.dat").write_bytes(movies.encode("latin-1"))
    (folder / "users.dat").write_text("1::M::24::10::48067\n2::F::53::16::70072\n")


def _folder_10m(folder: Path) -> None:
    _folder_1m(folder)
    (folder / "movies.dat").write_bytes((folder / "movies.dat").read_bytes().decode("latin-1").encode("utf-8"))
    (folder / "users.dat").unlink()


def _folder_csv(folder: Path) -> None:
    lines = "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in RATINGS)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + lines)
    movies = f'movieId,title,genres\n10,{TITLES["10"]},Action|Drama\n11,"{TITLES["11"]}",(no genres listed)\n'
    (folder / "movies.csv").write_text(movies, encoding="utf-8")


FORMS = [_folder_100k, _folder_1m, _folder_10m, _folder_csv]


@pytest.mark.parametrize("make", FORMS)
@pytest.mark.parametrize("zipped", [False, True])
def test_published_forms(tmp_path: Path, make: object, zipped: bool) -> None:
    folder = tmp_path / "ml-tiny"
    folder.mkdir()
    make(folder)  # type: ignore[operator]
    path = folder
    if zipped:
        path = tmp_path / "ml-tiny.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.iterdir():
                archive.write(file, f"ml-tiny/{file.name}")
    dataset = Dataset.from_raw_log(read_movielens(path))
    assert dataset.name == "ml-tiny"
    assert dataset.interactions.rows() == [(user, item, at, rating) for user, item, rating, at in RATINGS]
    assert dataset.titles == TITLES
    assert dict(dataset.items.select("item_id", "genres").iter_rows()) == {"10": "Action, Drama", "11": None}
    if make in (_folder_100k, _folder_1m):
        assert dataset.users is not None
        assert dataset.users.select("user_id", "gender", "age").rows() == [("1", "M", 24), ("2", "F", 53)]
    else:
        assert dataset.users is None


def test_folders_that_are_not_movielens(tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match=r"has no u\.data, ratings\.dat, ratings\.csv"):
        read_movielens(tmp_path)
    with pytest.raises(LorarecError, match="does not exist"):
        read_movielens(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("make", "file", "content", "message"),
    [
        (_folder_100k, "u.data", "1\t10\t5\tnoon\n", r"u\.data: line 1 has timestamp 'noon'"),
        (_folder_100k, "u.data", "1\t10\t5\t881250949\n1\t10\t5\t881250950\t7\n", "line 2 has 5 fields, not 4"),
        (_folder_100k, "u.item", "10|Title only\n", r"u\.item: row 1 has 2 fields"),
        (_folder_1m, "ratings.dat", "1,10,5,978300760\n", r"ratings\.dat does not hold user, item, rating, timestamp"),
        (_folder_1m, "ratings.dat", "1::10::5::978300760\n2::11::5\n", "line 2 has 3 fields, not 4"),
        (_folder_csv, "ratings.csv", "user,movieId,rating,timestamp\n1,1,1,1\n", r"ratings\.csv: no column userId"),
        (_folder_csv, "movies.csv", None, r"movies\.csv does not exist"),
        (_folder_1m, "movies.dat", None, r"movies\.dat: No such file"),
    ],
)
def test_malformed_files(tmp_path: Path, make: object, file: str, content: str | None, message: str) -> None:
    make(tmp_path)  # type: ignore[operator]
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_text(content)
    with pytest.raises(LorarecError, match=message) as caught:
        read_movielens(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_empty_title_is_counted_not_fatal(tmp_path: Path) -> None:
    _folder_csv(tmp_path)
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n10,,Action\n11,Named,Drama\n")
    dataset = Dataset.from_raw_log(read_movielens(tmp_path))
    assert dataset.info["import"]["untitled_items"] == 1
    assert dataset.interactions.select(pl.col("item_id").unique()).item() == "11"
