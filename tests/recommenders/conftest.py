"""Training data with new items, and a small dataset with its split."""

import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, leave_one_out
from lorarec.recommenders import TrainingData
from tests.factories import circles_data, noun_dataset


@pytest.fixture(scope="session")
def with_new_items(shared_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """The circles, of which a fifth of the items is new in `test["new-item"]`; one true item among 20."""
    return circles_data(shared_backbone, tmp_path_factory, new_items=0.2)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return noun_dataset()


@pytest.fixture(scope="session")
def split(dataset: Dataset) -> Split:
    """Leave-one-out with both settings and ten candidates."""
    return leave_one_out(dataset, new_items=0.2, negatives=9)
