"""A dataset in which titles of a user's items share a word, and its split."""

import pytest

from lorarec.data import Dataset, Split, leave_one_out
from tests.factories import noun_dataset


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return noun_dataset()


@pytest.fixture(scope="session")
def split(dataset: Dataset) -> Split:
    """Leave-one-out with both settings and ten candidates."""
    return leave_one_out(dataset, new_items=0.2, negatives=9)
