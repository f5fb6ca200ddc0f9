"""A log in which items follow each other in four circles of ten, and the same log with the items shuffled.

The titles of a circle share a word. There are two other domains of this kind, one with the same words.
"""

import numpy as np
import polars as pl
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, leave_one_out
from lorarec.recommenders import TrainingData

USERS, LENGTH = 120, 10
WORDS, OTHERS = ("lamp", "puzzle", "lipstick", "novel"), ("chair", "brush", "game", "guide")


def _log(
    name: str, shuffled: bool = False, new_items: float = 0, words: tuple[str, ...] = WORDS
) -> tuple[Dataset, Split]:
    random = np.random.default_rng(0)
    items = len(words) * LENGTH
    rows = []
    for user in range(USERS):
        start, circle = random.integers(LENGTH), user % len(words)
        chosen = circle * LENGTH + (start + np.arange(8)) % LENGTH
        if shuffled:
            chosen = random.permutation(items)[:8]
        rows += [(f"u{user}", f"i{item}", time) for time, item in enumerate(chosen)]
    titles = [f"{words[item // LENGTH]} no{item}" for item in range(items)]
    table = pl.DataFrame({"item_id": [f"i{item}" for item in range(items)], "title": titles})
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    dataset = Dataset.from_frames(name, interactions, table)
    return dataset, leave_one_out(dataset, new_items=new_items, negatives=19 if new_items else 29, seed=1)


def _material(
    backbone: Backbone, tmp: pytest.TempPathFactory, shuffled: bool = False, new_items: float = 0
) -> TrainingData:
    general = [_log("same words"), _log("other words", words=OTHERS)]
    return TrainingData(*_log("circles", shuffled, new_items), general, backbone, tmp.mktemp("kept"))


@pytest.fixture(scope="session")
def circles(shared_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return _material(shared_backbone, tmp_path_factory)


@pytest.fixture(scope="session")
def noise(shared_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return _material(shared_backbone, tmp_path_factory, shuffled=True)


@pytest.fixture(scope="session")
def with_new_items(shared_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """The circles, of which a fifth of the items is new in `test["new-item"]`; one true item among 20."""
    return _material(shared_backbone, tmp_path_factory, new_items=0.2)
