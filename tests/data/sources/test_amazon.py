"""Amazon reviews and metadata in the forms of 2014, 2018 and 2023."""

import gzip
import json
from pathlib import Path

import pytest

from lorarec.data import Dataset, read_amazon
from lorarec.errors import LorarecError

USERS = ["A1YJEY40YUW4SE", "A3Z74TDRGD0HU"]
ITEMS = ["B004756YJA", "7806397051"]
ROWS = [
    (USERS[0], ITEMS[0], 5.0, 1391040000),
    (USERS[0], ITEMS[1], 3.0, 1397779200),
    (USERS[1], ITEMS[0], 4.0, 1378425600),
]
EXPECTED = [(user, item, at, rating) for user, item, rating, at in ROWS]
OLD = [
    {"reviewerID": user, "asin": item, "reviewText": "It's\nfine", "overall": rating, "unixReviewTime": at}
    for user, item, rating, at in ROWS
]
NEW = [
    {
        "rating": rating,
        "title": "Great",
        "asin": "B000VARIANT",
        "parent_asin": item,
        "user_id": user,
        "timestamp": at * 1000,
    }
    for user, item, rating, at in ROWS
]
META_2014 = [
    {"asin": ITEMS[0], "title": "Brush &amp; Comb", "brand": "B", "categories": [["Beauty", "Hair"], ["Other"]]},
    {"asin": ITEMS[1], "title": 'The "15" Color', "price": 1.5},
    {"asin": "B00UNSEEN0", "title": "Unseen"},
]
META_2018 = [
    {"asin": ITEMS[0], "title": "Brush & Comb", "brand": "B", "category": ["Beauty", "Hair"]},
    {"asin": ITEMS[1], "title": 'The "15" Color', "category": []},
]
META_2023 = [
    {"parent_asin": ITEMS[0], "title": "Brush & Comb", "store": "B", "categories": ["Beauty", "Hair"]},
    {"parent_asin": ITEMS[1], "title": 'The "15" Color', "store": None, "categories": []},
]


def _json(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    return path


def _literal(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_bytes(gzip.compress("\n".join(repr(row) for row in rows).encode()))
    return path


def _csv(path: Path, order: str, header: str = "") -> Path:
    rows = [{"u": user, "i": item, "r": rating, "t": at} for user, item, rating, at in ROWS]
    path.write_text(header + "".join(",".join(str(row[name]) for name in order) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("write", "name", "reviews", "meta"),
    [
        (_json, "reviews_Beauty_5.json.gz", OLD, META_2014),
        (_literal, "reviews_Beauty.json.gz", OLD, META_2014),
        (_json, "All_Beauty_5.json.gz", OLD, META_2018),
        (_json, "All_Beauty.jsonl.gz", NEW, META_2023),
    ],
)
def test_reviews_with_metadata(tmp_path: Path, write: object, name: str, reviews: list, meta: list) -> None:  # type: ignore[type-arg]
    log = write(tmp_path / name, reviews)  # type: ignore[operator]
    about = (_literal if meta is META_2014 else _json)(tmp_path / "meta.json.gz", meta)
    dataset = Dataset.from_raw_log(read_amazon(log, about))
    assert dataset.interactions.rows() == EXPECTED
    assert dataset.items.rows() == [
        (ITEMS[1], 'The "15" Color', None, None),
        (ITEMS[0], "Brush & Comb", "B", "Beauty > Hair"),
    ]
    assert dataset.name in ("beauty-5", "beauty", "all-beauty-5", "all-beauty")


@pytest.mark.parametrize(
    ("order", "header"),
    [("uirt", ""), ("iurt", ""), ("uirt", "user_id,parent_asin,rating,timestamp\n")],
    ids=["2014", "2018", "2023"],
)
def test_ratings_only(tmp_path: Path, order: str, header: str) -> None:
    source = read_amazon(_csv(tmp_path / "ratings_Beauty.csv", order, header))
    assert Dataset.from_raw_log(source, keep_untitled=True).interactions.rows() == EXPECTED


def test_without_metadata_nothing_has_a_title(tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match="no item has a title"):
        Dataset.from_raw_log(read_amazon(_csv(tmp_path / "ratings.csv", "uirt")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"user": "a", "asin": "b"}\n', "none of reviewerID, user_id is there for user_id"),
        ('{"reviewerID": "a", "asin": "b", "unixReviewTime": 1}\n{"reviewerID"\n', "line 2 is neither"),
        ('{"reviewerID": "a", "asin": "b", "unixReviewTime": "May"}\n', "row 1 has timestamp 'May'"),
        ("a,b,5\n", "has 3 columns without names"),
        ("alice,book,5,1391040000\n", "cannot tell users from items"),
        ("", "is empty"),
    ],
)
def test_unusable_reviews(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "reviews.json").write_text(content)
    with pytest.raises(LorarecError, match=message):
        read_amazon(tmp_path / "reviews.json")


def test_unusable_metadata(tmp_path: Path) -> None:
    log = _json(tmp_path / "reviews.json.gz", OLD)
    meta = tmp_path / "meta.json.gz"
    meta.write_bytes(gzip.compress(b"{'asin': open('/etc/passwd')}\n"))
    with pytest.raises(LorarecError, match="line 1 is neither a JSON object nor a Python literal"):
        read_amazon(log, meta)
    meta.write_bytes(gzip.compress(b'{"title": "no id"}\n'))
    with pytest.raises(LorarecError, match="line 1 has neither asin nor parent_asin"):
        read_amazon(log, meta)
    whole = gzip.compress("\n".join(json.dumps({"asin": str(k)}) for k in range(9000)).encode())
    meta.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LorarecError, match=r"meta\.json\.gz is a truncated gzip file"):
        read_amazon(log, meta)


def test_reviews_of_bad_times_are_named_or_dropped(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    rows = [f"A00000000000{k},B0{k},5.0,{1_300_000_000 + k}" for k in range(9)]
    path.write_text("\n".join([*rows, "A000000000009,B09,5.0,0"]))
    with pytest.raises(LorarecError, match="row 10 has timestamp '0', far from the others, most of which are seconds"):
        read_amazon(path)
    source = read_amazon(path, bad_times="drop")
    assert source.interactions.height == 9
    assert source.report == {"rows_with_bad_times_dropped": 1, "first_of_them": ["row 10"]}


@pytest.mark.parametrize("literal", [False, True])
def test_a_review_with_a_name_twice_is_refused_with_its_line(tmp_path: Path, literal: bool) -> None:
    lines = [(repr if literal else json.dumps)(row) for row in OLD]
    quote = "'" if literal else '"'
    lines[1] = lines[1].replace("{", f"{{{quote}asin{quote}: {quote}B000000000{quote}, ", 1)
    (tmp_path / "reviews.json").write_text("\n".join(lines))
    with pytest.raises(LorarecError, match="line 2 has the name 'asin' more than once"):
        read_amazon(tmp_path / "reviews.json")
    (tmp_path / "reviews.json").write_text(lines[0])
    (tmp_path / "meta.json").write_text(lines[1])
    with pytest.raises(LorarecError, match="line 1 has the name 'asin' more than once"):
        read_amazon(tmp_path / "reviews.json", tmp_path / "meta.json")


def test_metadata_of_items_without_reviews_are_kept_on_demand(tmp_path: Path) -> None:
    log, meta = _json(tmp_path / "reviews.json.gz", OLD), _json(tmp_path / "meta.json.gz", META_2014)
    kept = Dataset.from_raw_log(read_amazon(log, meta, keep_unseen=True), keep_unseen=True)
    assert set(kept.titles) == {*ITEMS, "B00UNSEEN0"}
    with pytest.raises(LorarecError, match="keep_unseen needs option meta"):
        read_amazon(log, keep_unseen=True)
