"""The fingerprint depends on the contents of tables only."""

import polars as pl
import pytest

from lorarec.data.hashing import content_hash

TABLE = pl.DataFrame(
    {"name": ["ab", "c", None], "count": [1, 2, 3], "share": [0.5, None, 1.0], "tags": [["x"], [], ["y", "z"]]}
)


def test_is_pinned_and_survives_a_change_of_chunks() -> None:
    assert content_hash(TABLE) == "a53474db44d8c16d"
    assert content_hash(pl.concat([TABLE[:1], TABLE[1:]], rechunk=False)) == content_hash(TABLE)


@pytest.mark.parametrize(
    "other",
    [
        TABLE.with_columns(name=pl.Series(["a", "bc", None])),
        TABLE.with_columns(name=pl.col("name").fill_null("")),
        TABLE.with_columns(share=pl.col("share").fill_null(0)),
        TABLE.with_columns(tags=pl.Series([["x"], ["y"], ["z"]])),
        TABLE.with_columns(count=pl.Series([1, 2, 4])),
        TABLE.reverse(),
        TABLE.rename({"name": "title"}),
        TABLE[:2],
    ],
)
def test_changes_with_the_content(other: pl.DataFrame) -> None:
    assert content_hash(other) != content_hash(TABLE)


@pytest.mark.filterwarnings("error")
def test_a_null_list_is_hashed_without_a_platform_dependent_cast() -> None:
    """It differs from an empty list, and its hash is the one that x86 processors gave before it was defined."""
    lists = [["x"], None, [], ["y", "z"]]
    assert content_hash(pl.DataFrame({"tags": lists})) == "741300537624bfaf"
    assert content_hash(pl.DataFrame({"tags": [each or [] for each in lists]})) != "741300537624bfaf"


def test_tables_do_not_run_into_each_other() -> None:
    assert content_hash(TABLE[:1], TABLE[1:]) != content_hash(TABLE[:2], TABLE[2:])


def test_decimals_differ_after_the_point() -> None:
    prices = [pl.DataFrame({"price": [text, None]}).cast(pl.Decimal(10, 2)) for text in ("1.25", "1.75", "1.25")]
    hashes = list(map(content_hash, prices))
    assert hashes[0] == hashes[2] != hashes[1]
