"""Counts of published datasets, where LORAREC_DATASETS names a folder that holds them."""

import os
from pathlib import Path

import pytest

from lorarec.data import Dataset, read_movielens, read_table
from lorarec.data.description import describe
from lorarec.data.filters import k_core

FOLDER = Path(os.environ.get("LORAREC_DATASETS", ""))
pytestmark = pytest.mark.skipif(not os.environ.get("LORAREC_DATASETS"), reason="LORAREC_DATASETS is not set")


@pytest.mark.parametrize(
    ("name", "users", "items", "interactions"),
    [("amazon-2014-beauty", 22_363, 12_101, 198_502), ("amazon-2014-toys", 19_412, 11_924, 167_597)],
)
def test_amazon_equals_table_4_of_the_paper(name: str, users: int, items: int, interactions: int) -> None:
    source = read_table(FOLDER / name / "interactions.parquet", FOLDER / name / "items.parquet")
    dataset = Dataset.from_raw_log(source, keep_untitled=True)
    figures = describe(dataset)
    assert (figures["users"], figures["items"], figures["interactions"]) == (users, items, interactions)
    assert figures["title_coverage"] > 0.995
    assert k_core(dataset, 5).info["counts"] == dataset.info["counts"]


@pytest.mark.parametrize(
    ("name", "users", "items", "interactions"),
    [("movielens-100k", 943, 1_682, 100_000), ("movielens-latest-small", 610, 9_724, 100_836)],
)
def test_movielens(name: str, users: int, items: int, interactions: int) -> None:
    dataset = Dataset.from_raw_log(read_movielens(FOLDER / name))
    assert dataset.info["counts"] == {"users": users, "items": items, "interactions": interactions}
