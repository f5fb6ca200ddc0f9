"""The canonical form of a dataset, its folder, and folders that are not one."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lorarec.data import Dataset
from lorarec.data.raw_log import folder_name
from lorarec.errors import LorarecError
from tests.factories import dataset_of

Frames = tuple[pl.DataFrame, pl.DataFrame]


def test_rows_are_sorted_by_user_then_time_and_ties_keep_their_order() -> None:
    dataset = dataset_of([("b", "x", 2), ("a", "z", 5), ("b", "y", 1), ("a", "y", 5), ("a", "x", 5), ("a", "w", 1)])
    assert dataset.interactions["user_id"].to_list() == ["a", "a", "a", "a", "b", "b"]
    assert dataset.interactions["item_id"].to_list() == ["w", "z", "y", "x", "y", "x"]


def test_types_counts_and_titles() -> None:
    rows = pl.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "timestamp": [3, 4], "extra": [0, 0]})
    items = pl.DataFrame({"brand": ["B", None], "title": ["Eight", "Seven"], "item_id": [8, 7]})
    dataset = Dataset.from_frames("n", rows, items, users=pl.DataFrame({"user_id": [2, 1], "age": [30, 40]}))
    assert dataset.interactions.schema == pl.Schema(
        {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
    )
    assert dataset.items.columns == ["item_id", "title", "brand"]
    assert dataset.titles == {"7": "Seven", "8": "Eight"}
    assert dataset.users is not None
    assert dataset.users["user_id"].to_list() == ["1"]
    assert dataset.info["counts"] == {"users": 1, "items": 2, "interactions": 2}


def test_fingerprint_ignores_row_order_and_name_but_not_content(frames: Frames) -> None:
    rows, items = frames
    one = Dataset.from_frames("one", rows, items)
    assert Dataset.from_frames("two", rows.reverse(), items.reverse()).fingerprint == one.fingerprint
    assert Dataset.from_frames("one", rows[1:], items).fingerprint != one.fingerprint


def test_save_and_load_round_trip(dataset: Dataset, tmp_path: Path) -> None:
    saved = dataset.save(tmp_path / "deep" / "toy")
    loaded = Dataset.load(tmp_path / "deep" / "toy")
    assert saved.folder == loaded.folder == tmp_path / "deep" / "toy"
    assert_frame_equal(loaded.interactions, dataset.interactions)
    assert_frame_equal(loaded.items, dataset.items)
    assert loaded.info == dataset.info
    assert loaded.fingerprint == dataset.fingerprint


def test_an_existing_folder_is_kept_unless_overwritten(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "precious").write_text("mine")
    with pytest.raises(LorarecError, match="exists already"):
        dataset.save(tmp_path / "toy")
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["precious"]
    with pytest.raises(LorarecError, match=r"toy is no dataset folder written by lorarec .*, so it is not overwritten"):
        dataset.save(tmp_path / "toy", overwrite=True)
    assert (tmp_path / "toy" / "precious").read_text() == "mine"
    dataset.save(tmp_path / "other")
    dataset.save(tmp_path / "other", overwrite=True)
    assert Dataset.load(tmp_path / "other").fingerprint == dataset.fingerprint


def test_a_disk_that_cannot_be_written_is_one_line_and_leaves_nothing(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LorarecError, match=r"cannot write to .*file") as caught:
        dataset.save(tmp_path / "file" / "toy")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("title", [None, "", "  "])
def test_an_item_without_title_is_named(frames: Frames, title: str | None) -> None:
    rows, items = frames
    items = items.with_columns(
        pl.when(pl.col("item_id") == "i05").then(pl.lit(title)).otherwise("title").alias("title")
    )
    with pytest.raises(LorarecError, match=r"without a title: 1, the first is 'i05'.*keep_untitled=True"):
        Dataset.from_frames("toy", rows, items)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows, items: (rows.drop("timestamp"), items), "no column timestamp"),
        (lambda rows, items: (rows, items.drop("title")), "no column title"),
        (lambda rows, items: (rows[:0], items), "has no interactions"),
        (lambda rows, items: (rows, items.filter(pl.col("item_id") != "i07")), "'i07'"),
        (lambda rows, items: (rows, pl.concat([items, items[:1]])), "'i00' has more than one row"),
        (lambda rows, items: (rows.with_columns(timestamp=pl.lit("soon")), items), "conversion"),
        (lambda rows, items: (rows.with_columns(user_id=pl.lit(None, pl.String)), items), "row 1 has no user_id"),
    ],
)
def test_unusable_frames(frames: Frames, change: Callable[..., Frames], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        Dataset.from_frames("toy", *change(*frames))


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ({"user_id": ["u1", "u2", "u1"]}, "users of toy: user 'u1' has more than one row: keep one"),
        ({"user_id": ["u1", None]}, "users of toy: row 2 has no user_id"),
        ({"name": ["u1"]}, "users of toy: no column user_id"),
    ],
)
def test_unusable_users(frames: Frames, tmp_path: Path, users: dict[str, list[str | None]], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        Dataset.from_frames("toy", *frames, pl.DataFrame(users))
    Dataset.from_frames("toy", *frames).save(tmp_path / "toy")
    pl.DataFrame(users).write_parquet(tmp_path / "toy" / "users.parquet")
    with pytest.raises(LorarecError, match=message.replace("of toy", "of .*toy")):
        Dataset.load(tmp_path / "toy")


def test_a_profile_of_nan_is_missing(frames: Frames) -> None:
    users = frames[0].select("user_id").unique().sort("user_id").head(2).with_columns(age=pl.Series([float("nan"), 20]))
    dataset = Dataset.from_frames("toy", *frames, users)
    assert dataset.users is not None
    assert dataset.users["age"].to_list() == [None, 20]


def test_a_folder_whose_name_looks_like_a_pattern(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "toy[1]*")
    assert_frame_equal(Dataset.load(tmp_path / "toy[1]*").items, dataset.items)


def test_a_folder_that_is_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match="is not a dataset folder"):
        Dataset.load(tmp_path / "nowhere")
    with pytest.raises(LorarecError, match=r"has no dataset\.json"):
        Dataset.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("interactions.parquet", None, r"interactions\.parquet is missing"),
        ("interactions.parquet", b"PAR1 nonsense", r"interactions\.parquet is not readable Parquet"),
        ("items.parquet", b"", r"items\.parquet is not readable Parquet"),
        ("dataset.json", b"{", "is not readable JSON"),
        ("dataset.json", b"[]", "lacks name, counts or fingerprint"),
    ],
)
def test_a_malformed_folder(dataset: Dataset, tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    dataset.save(tmp_path / "toy")
    if content is None:
        (tmp_path / "toy" / file).unlink()
    else:
        (tmp_path / "toy" / file).write_bytes(content)
    with pytest.raises(LorarecError, match=message) as caught:
        Dataset.load(tmp_path / "toy")
    assert "\n" not in str(caught.value)


def test_tables_that_are_not_those_of_dataset_json(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "toy")
    info = json.loads((tmp_path / "toy" / "dataset.json").read_text())
    info["counts"]["interactions"] += 1
    (tmp_path / "toy" / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(LorarecError, match="does not belong to these tables"):
        Dataset.load(tmp_path / "toy")


def test_folder_names() -> None:
    assert folder_name("Beauty & Care (5)") == "beauty-care-5"
    assert folder_name("***") == "dataset"


def test_the_history_of_a_user() -> None:
    dataset = dataset_of([("a", "y", 2), ("a", "x", 1), ("b", "x", 1)])
    assert dataset.history("a") == ["x", "y"]
    with pytest.raises(LorarecError, match="user c is not in dataset toy: its users are like a, b"):
        dataset.history("c")
