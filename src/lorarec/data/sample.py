"""The bundled sample: MovieLens ml-latest-small, divided by genre into domains that share users but no item.

`sample/` contains ratings.parquet and movies.parquet with the published values, and the licence with the citation.
"""

from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import polars as pl

from lorarec.data.columns import ITEM, RATING, TIME, TITLE, USER
from lorarec.data.dataset import Dataset
from lorarec.data.raw_log import RawLog
from lorarec.data.reading import opened
from lorarec.data.sources.movielens import read_movielens, readable_genres
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, new_folder

LICENCE = "MovieLens terms of use: research, no commercial use, redistribution under the same conditions"
SPECIFIC_DOMAIN = "action"
GENERAL_DOMAINS = ("thriller", "comedy", "drama")
# A movie belongs to the first domain that has one of its genres.
_GENRES = {
    SPECIFIC_DOMAIN: ("Action", "Adventure", "Sci-Fi", "Fantasy"),
    "thriller": ("Thriller", "Crime", "Horror", "Mystery"),
    "comedy": ("Comedy",),
    "drama": ("Drama", "Romance"),
}
_CORE = 5


def sample_domains() -> tuple[str, ...]:
    """Return the names of the domains, the specific one first."""
    return tuple(_GENRES)


def load_sample(domain: str = SPECIFIC_DOMAIN) -> Dataset:
    """Load a domain of the bundled film ratings (MovieLens ml-latest-small) as a 5-core dataset.

    No two domains share an item.

    Args:
        domain: Name of the domain: `action`, `thriller`, `comedy` or `drama`.

    Raises:
        LorarecError: There is no such domain, or the sample was removed from the package.

    Examples:
        >>> from lorarec import load_sample
        >>> load_sample("comedy").name
        'sample-comedy'
    """
    if domain not in _GENRES:
        raise LorarecError(f"the sample has no domain {domain!r}: use one of {', '.join(_GENRES)}")
    ratings, movies = _tables()
    left = movies
    for earlier in list(_GENRES)[: list(_GENRES).index(domain)]:
        left = left.filter(~_has_genre_of(earlier))
    movies = left.filter(_has_genre_of(domain))
    return _assembled(f"sample-{domain}", ratings.join(movies, on=ITEM, how="semi", maintain_order="left"), movies)


def load_whole_sample() -> Dataset:
    """Load all ratings of the sample, of films of any genre, as one 5-core dataset.

    Raises:
        LorarecError: The sample was removed from the package.
    """
    return _assembled("sample", *_tables())


def build_sample(folder: str | Path, out: str | Path, overwrite: bool = False) -> None:
    """Make the bundled sample from an unpacked ml-latest-small folder.

    Args:
        folder: Path of the folder with movies.csv, ratings.csv and README.txt as published.
        out: Path of the folder to write.
        overwrite: Whether a sample folder at that path is replaced.

    Raises:
        LorarecError: The folder lacks these files, or its README has no licence and citation.
    """
    source = read_movielens(folder)
    with opened(Path(folder) / "README.txt") as stream:
        readme = stream.read().decode("utf-8")
    start, end = readme.find("Usage License\n"), readme.find("Further Information About GroupLens\n")
    if not 0 <= start < end:
        raise LorarecError(f"{Path(folder) / 'README.txt'} has no licence and citation: is it ml-latest-small?")
    ratings = source.interactions.with_columns(
        pl.col(USER).cast(pl.UInt16), pl.col(ITEM).cast(pl.Int32), pl.col(TIME).cast(pl.Int32)
    )
    movies = source.items.with_columns(pl.col(ITEM).cast(pl.Int32)).join(ratings, on=ITEM, how="semi")
    with new_folder(out, overwrite, FolderKind.SAMPLE) as made:
        tables = {"ratings": ratings.sort(USER, TIME, maintain_order=True), "movies": movies.sort(ITEM)}
        for name, table in tables.items():
            table.write_parquet(made / f"{name}.parquet", compression="zstd", compression_level=22, statistics=False)
        notice = "MovieLens ml-latest-small, https://grouplens.org/datasets/movielens/\n\n" + readme[start:end].strip()
        (made / "LICENSE.txt").write_text(notice + "\n", encoding="utf-8")


@cache
def _tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    sample = files("lorarec.data") / "sample"
    if not sample.is_dir():
        raise LorarecError("the bundled sample was removed from this installation: use a dataset of your own")
    with as_file(sample) as folder:
        ratings = pl.read_parquet(folder / "ratings.parquet", glob=False)
        movies = pl.read_parquet(folder / "movies.parquet", glob=False)
    as_text = pl.col(USER, ITEM).cast(pl.String)
    ratings = ratings.select(as_text, pl.col(TIME).cast(pl.Int64), pl.col(RATING).cast(pl.Float32))
    return ratings, movies.select(pl.col(ITEM).cast(pl.String), TITLE, "genres")


def _assembled(name: str, ratings: pl.DataFrame, movies: pl.DataFrame) -> Dataset:
    source = RawLog(name, "MovieLens ml-latest-small (bundled)", LICENCE, ratings, readable_genres(movies))
    return Dataset.from_raw_log(source, k_core=_CORE)


def _has_genre_of(domain: str) -> pl.Expr:
    return pl.col("genres").fill_null("").str.contains("|".join(_GENRES[domain]))
