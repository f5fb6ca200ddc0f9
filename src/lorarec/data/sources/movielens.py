"""MovieLens as GroupLens publishes it: 100K (u.data), 1M and 10M (.dat), 20M, 25M, 32M and latest (CSV)."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl

from lorarec.data.archives import unzipped
from lorarec.data.columns import ITEM, RATING, TIME, TITLE, USER
from lorarec.data.fields import clean_interactions
from lorarec.data.raw_log import RawLog
from lorarec.data.reading import opened
from lorarec.data.tables import TableFormat, open_table
from lorarec.errors import LorarecError

LICENCE = "GroupLens MovieLens terms of use: see the README of the published folder"
_RATING_COLUMNS = (USER, ITEM, RATING, TIME)
_FILES = {
    "u.data": ("u.data", "u.item", "u.genre", "u.user", "README"),
    "ratings.dat": ("ratings.dat", "movies.dat", "users.dat", "README"),
    "ratings.csv": ("ratings.csv", "movies.csv", "README.txt"),
}


def read_movielens(path: str | Path) -> RawLog:
    """Read a MovieLens folder or the zip it is published in.

    Items get `genres` as readable text; users of 100K and 1M get gender, age, occupation and zip code as published.

    Raises:
        LorarecError: The path is no MovieLens folder, a file is malformed, or the zip cannot be unpacked.
    """
    path = Path(path)
    if not path.is_file():
        return _read_folder(path, path.name)
    if not zipfile.is_zipfile(path):
        raise LorarecError(f"{path} is no zip file, or a truncated one: give the published zip or its unpacked folder")
    with unzipped(path, {name for names in _FILES.values() for name in names}) as folder:
        return _read_folder(folder, path.stem)


def _read_folder(folder: Path, name: str) -> RawLog:
    if not folder.exists():
        raise LorarecError(f"{folder} does not exist")
    form = next((form for form in _FILES if (folder / form).is_file()), None)
    if form is None:
        raise LorarecError(f"{folder} has no {', '.join(_FILES)}: is it an unpacked MovieLens folder?")
    users = None
    if form == "u.data":
        interactions = _ratings(folder / form, separator="\t")
        items = _items_100k(folder)
        users = _users(folder / "u.user", "|", (USER, "age", "gender", "occupation", "zip_code"))
    elif form == "ratings.dat":
        interactions = _ratings(folder / form, separator="::")
        items = read_movies_dat(folder / "movies.dat")
        users = _users(folder / "users.dat", "::", (USER, "gender", "age", "occupation", "zip_code"))
    else:
        interactions, items = _csv(folder)
    return RawLog(name, f"MovieLens ({name})", LICENCE, interactions, readable_genres(items), users)


def readable_genres(items: pl.DataFrame) -> pl.DataFrame:
    """Write `genres` as "Drama, War" instead of "Drama|War", and null if none is known."""
    genres = pl.col("genres").str.replace_all("|", ", ", literal=True)
    unknown = pl.col("genres").is_in(["(no genres listed)", "unknown", ""])
    return items.with_columns(pl.when(~unknown).then(genres).alias("genres"))


def _ratings(path: Path, separator: str) -> pl.DataFrame:
    table = open_table(path, TableFormat(separator=separator, header=False, quote="none"))
    if len(table.names) != len(_RATING_COLUMNS):
        raise LorarecError(f"{path} does not hold user, item, rating, timestamp on every line")
    rows, name_row = table.read(dict(zip(_RATING_COLUMNS, table.names, strict=True)))
    return clean_interactions(rows, path, name_row=name_row)


def _csv(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    columns = {"userId": USER, "movieId": ITEM, "rating": RATING, "timestamp": TIME}
    rows, name_row = _named(folder / "ratings.csv", columns)
    ratings = clean_interactions(rows, folder / "ratings.csv", name_row=name_row)
    movies, _ = _named(folder / "movies.csv", {"movieId": ITEM, "title": TITLE, "genres": "genres"})
    return ratings, movies


def _named(path: Path, columns: dict[str, str]) -> tuple[pl.DataFrame, Callable[[int], str]]:
    table = open_table(path)
    missing = columns.keys() - set(table.names)
    if missing:
        raise LorarecError(f"{path}: no column {', '.join(sorted(missing))}")
    return table.read({new: old for old, new in columns.items()})


def read_movies_dat(path: Path) -> pl.DataFrame:
    """Read item_id, title and genres from `movies.dat`."""
    rows = _split_lines(path, "::", 3)
    return pl.DataFrame(rows, schema=dict.fromkeys((ITEM, TITLE, "genres"), pl.String), orient="row")


def _items_100k(folder: Path) -> pl.DataFrame:
    names = [fields[0] for fields in _split_lines(folder / "u.genre", "|", 2)]
    rows = _split_lines(folder / "u.item", "|", 5 + len(names))
    genres = ["|".join(name for name, flag in zip(names, row[5:], strict=True) if flag == "1") for row in rows]
    return pl.DataFrame(
        {ITEM: [row[0] for row in rows], TITLE: [row[1] for row in rows], "genres": genres},
        schema=dict.fromkeys((ITEM, TITLE, "genres"), pl.String),
    )


def _users(path: Path, separator: str, columns: tuple[str, ...]) -> pl.DataFrame | None:
    if not path.is_file():  # 10M has no users
        return None
    rows = _split_lines(path, separator, len(columns))
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row").with_columns(
        pl.col("age").cast(pl.Int32, strict=False)
    )


def _split_lines(path: Path, separator: str, fields: int) -> list[list[str]]:
    with opened(path) as stream:
        content = stream.read()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    rows = [line.split(separator) for line in text.split("\n") if line.strip()]
    for number, row in enumerate(rows, start=1):
        if len(row) != fields:
            raise LorarecError(f"{path}: row {number} has {len(row)} fields separated by {separator!r}, not {fields}")
    return [[field.rstrip("\r") for field in row] for row in rows]
