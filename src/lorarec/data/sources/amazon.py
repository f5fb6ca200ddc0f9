"""Amazon reviews as published: 2014 and 2018 (McAuley group) and 2023, JSON lines or ratings only, with metadata."""

import re
from pathlib import Path
from typing import Any

import polars as pl

from lorarec.data.archives import check_gzip
from lorarec.data.columns import ITEM, RATING, TIME, TITLE, USER
from lorarec.data.fields import read_interactions
from lorarec.data.raw_log import RawLog, folder_name
from lorarec.data.reading import collect, column_names, first_line, parse_record, read_json_lines, records, table_errors
from lorarec.data.tables import BadTimes, TableFormat
from lorarec.errors import LorarecError
from lorarec.io import JsonObject

LICENCE = "no licence of its own; cite the publication named on the data's page"
# Names in order of preference: 2023 metadata is keyed by parent_asin.
_FIELDS = {
    USER: ("reviewerID", "user_id"),
    ITEM: ("parent_asin", "asin"),
    RATING: ("overall", "rating"),
    TIME: ("unixReviewTime", "timestamp"),
}
_USER_ID = re.compile(r"A[A-Z0-9]{11,}")


def read_amazon(
    reviews: str | Path,
    meta: str | Path | None = None,
    *,
    bad_times: BadTimes = "refuse",
    keep_unseen: bool = False,
    progress: bool = False,
) -> RawLog:
    """Read reviews and, for titles, their metadata.

    Args:
        reviews: `reviews_*.json.gz` or ratings-only CSV (2014), `*.json.gz` or ratings-only CSV (2018), `*.jsonl.gz`
            or 5-core CSV (2023); gzipped or not. Lines may be Python literals.
        meta: `meta_*.json.gz` or `meta_*.jsonl.gz`; gives title, brand and categories.
        bad_times: See `TableFormat`.
        keep_unseen: Also read the metadata of items without reviews; needs `meta`.
        progress: Show bars on stderr.

    Raises:
        LorarecError: The fields are those of none of these, a line cannot be read, or `keep_unseen` has no effect.
    """
    if keep_unseen and meta is None:
        raise LorarecError("option keep_unseen needs option meta, which has the titles of items without reviews")
    reviews = Path(reviews)
    is_json = first_line(reviews).lstrip().startswith("{")
    raw = _reviews(reviews, progress) if is_json else _ratings_only(reviews)
    options = TableFormat(bad_times=bad_times)
    rows, report = read_interactions(raw, reviews, options)
    del raw
    wanted = None if keep_unseen else set(rows[ITEM].unique().to_list())
    no_items = pl.DataFrame(schema={ITEM: pl.String, TITLE: pl.String})
    items = _metadata(Path(meta), wanted, progress) if meta else no_items
    name = folder_name(re.sub(r"^reviews_|\.(json|jsonl|csv)(\.gz)?$", "", reviews.name))
    return RawLog(name, f"Amazon reviews ({reviews.name})", LICENCE, rows, items, report=report)


def _reviews(path: Path, progress: bool) -> pl.DataFrame:
    known = parse_record(first_line(path).encode(), f"{path}: line 1")
    chosen = _choose(list(known), path)
    return read_json_lines(path, list(chosen), progress).rename(chosen)


def _ratings_only(path: Path) -> pl.DataFrame:
    fields = first_line(path).split(",")
    check_gzip(path)  # polars unpacks whatever it is given
    header = any(field in names for field in fields for names in _FIELDS.values())
    lazy = pl.scan_csv(path, has_header=header, infer_schema=False, glob=False)
    names = column_names(lazy, path)
    if header:
        chosen = _choose(names, path)
    elif len(names) == 4:
        with table_errors(path):
            users_first = _users_first(lazy.select(names[:2]).head(1000).collect(), path)
        meanings = (USER, ITEM, RATING, TIME) if users_first else (ITEM, USER, RATING, TIME)
        chosen = dict(zip(names, meanings, strict=True))
    else:
        raise LorarecError(
            f"{path} has {len(names)} columns without names; ratings-only files have 4: "
            "use `lorarec data import table` for other tables, and name the columns"
        )
    return collect(lazy.select(pl.col(old).alias(new) for old, new in chosen.items()), path)


def _users_first(head: pl.DataFrame, path: Path) -> bool:
    """Return whether the user is the first column, as in 2014, or the item, as in 2018; ids of users start with A."""
    first, second = (sum(bool(_USER_ID.fullmatch(value or "")) for value in column) for column in head)
    if first == second:
        raise LorarecError(
            f"{path}: cannot tell users from items; use `lorarec data import table` and name the columns"
        )
    return first > second


def _choose(names: list[str], path: Path) -> dict[str, str]:
    """Return the column name of each published name."""
    chosen = {}
    for meaning, candidates in _FIELDS.items():
        match = next((name for name in candidates if name in names), None)
        if match is None and meaning != RATING:
            raise LorarecError(
                f"{path}: none of {', '.join(candidates)} is there for {meaning} (there are {', '.join(names)}): "
                "use `lorarec data import table` and name the columns"
            )
        if match:
            chosen[match] = meaning
    return chosen


def _metadata(path: Path, wanted: set[str] | None, progress: bool) -> pl.DataFrame:
    rows = []
    for number, record in records(path, progress):
        item = record.get("parent_asin") or record.get("asin")
        if not item:
            raise LorarecError(f"{path}: line {number} has neither asin nor parent_asin: is it a metadata file?")
        if wanted is None or item in wanted:
            brand = record.get("brand") or record.get("store")
            rows.append((item, _text(record.get("title")), _text(brand), _path(record)))
    schema = dict.fromkeys((ITEM, TITLE, "brand", "categories"), pl.String)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | float) else None


def _path(record: JsonObject) -> str | None:
    """Return the categories from the widest to the narrowest; of several lists, as in 2014, the first is used."""
    categories = record.get("categories") or record.get("category") or record.get("main_category")
    while isinstance(categories, list) and categories and isinstance(categories[0], list):
        categories = categories[0]
    if isinstance(categories, list):
        return " > ".join(str(category) for category in categories) or None
    return _text(categories)
