"""Statistics and the plot of a dataset."""

import json
from pathlib import Path

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
