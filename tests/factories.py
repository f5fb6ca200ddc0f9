"""Data sets and training data that several tests share."""

import numpy as np
import polars as pl
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, leave_one_out
from lorarec.recommenders import TrainingData

NOUNS = ["lamp", "chair", "table", "brush", "game", "puzzle"]
USERS, LENGTH = 120, 10
WORDS, OTHERS = ("lamp", "puzzle", "lipstick", "novel"), ("chair", "brush", "game", "guide")


def noun_dataset() -> Dataset:
    """36 users; each chooses seven of the ten items of one noun."""
    rng = np.random.default_rng(0)
    items = [(f"{noun}-{number}", f"number{number} {noun}") for noun in NOUNS for number in range(10)]
    rows = []
    for user in range(36):
        chosen = rng.permutation(10)[:7]
        rows += [(f"u{user:02}", f"{NOUNS[user % 6]}-{number}", at) for at, number in enumerate(chosen)]
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return Dataset.from_frames("nouns", interactions, pl.DataFrame(items, schema=["item_id", "title"], orient="row"))


def circle_log(
    name: str, shuffled: bool = False, new_items: float = 0, words: tuple[str, ...] = WORDS
) -> tuple[Dataset, Split]:
    """A log whose items follow each other in circles of ten with a word in common, and its split."""
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


def circles_data(
    backbone: Backbone, tmp: pytest.TempPathFactory, shuffled: bool = False, new_items: float = 0
) -> TrainingData:
    """Training data of the log of circles, with two other domains, one of the same words."""
    general = [circle_log("same words"), circle_log("other words", words=OTHERS)]
    return TrainingData(*circle_log("circles", shuffled, new_items), general, backbone, tmp.mktemp("kept"))
