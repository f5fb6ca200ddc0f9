"""Statistics and the plot of a dataset."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from lorarec.data import Dataset
from lorarec.data.description import describe, plot_lengths
from lorarec.errors import LorarecError
from tests.factories import dataset_of


def test_figures() -> None:
    rows = [("a", "x", 0), ("a", "y", 1), ("a", "x", 2), ("b", "z", 5)]
    figures = describe(dataset_of(rows, {"x": "x", "y": "Title of y", "z": "Title of z"}))
    assert (figures["users"], figures["items"], figures["interactions"]) == (2, 3, 4)
    assert figures["density"] == 0.5
    assert figures["interactions_per_user"] == {"mean": 2.0, "median": 2.0, "min": 1, "max": 3}
    assert figures["interactions_per_item"] == {"mean": 4 / 3, "median": 1.0, "min": 1, "max": 2}
    assert figures["users_below_three_interactions"] == 1
    assert figures["title_coverage"] == pytest.approx(2 / 3)
    assert figures["time_span"] == {"first": 0, "last": 5}
    assert json.loads(json.dumps(figures)) == figures


def test_timestamps_are_described_as_text() -> None:
    span = describe(dataset_of([("a", "x", 1_400_000_000), ("a", "y", 1_400_000_001)]))["time_span"]
    assert span == {"first": "2014-05-13T16:53:20+00:00", "last": "2014-05-13T16:53:21+00:00"}


def test_picture(dataset: Dataset, tmp_path: Path) -> None:
    plot_lengths(dataset, tmp_path / "lengths.png")
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(LorarecError, match="cannot write"):
        plot_lengths(dataset, tmp_path / "lengths.png" / "below.png")
    with pytest.raises(LorarecError, match=r"lengths\.jpg: plots are PNG files"):
        plot_lengths(dataset, tmp_path / "lengths.jpg")


def test_a_name_with_dollar_signs_is_no_formula(dataset: Dataset, tmp_path: Path) -> None:
    plot_lengths(replace(dataset, name=r"$\frac$"), tmp_path / "lengths.png")
    assert (tmp_path / "lengths.png").is_file()


def test_items_that_nobody_interacted_with_count_as_zero() -> None:
    log = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [7, 8, 7], "timestamp": [1, 2, 3]})
    items = pl.DataFrame({"item_id": [7, 8, 9, 10], "title": ["a", "b", "c", "d"]})
    described = describe(Dataset.from_polars(log, items, keep_unseen=True))
    assert described["interactions_per_item"] == {"mean": 0.75, "median": 0.5, "min": 0, "max": 2}


def test_times_after_the_year_9999_are_described_by_their_numbers() -> None:
    log = pl.DataFrame(
        {"user_id": [1] * 3, "item_id": [7, 8, 9], "timestamp": [1_700_000_000, 1_700_000_001, 10**12 * 2]}
    )
    dataset = Dataset.from_polars(log.with_columns(title=pl.lit("t")), bad_times="keep")
    assert describe(dataset)["time_span"] == {"first": 1_700_000_000, "last": 2 * 10**12}
