"""A small dataset with its split, and a population with an index and an adapter on disk."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from lorarec.backbone import Backbone, BackboneConfig
from lorarec.data import Dataset, Split, leave_one_out
from lorarec.ranking.population import PopulationConfig, PopulationScorer, read_population
from lorarec.recommenders import NextItemConfig
from lorarec.retrieval import Index
from tests.factories import dataset_of, noun_dataset

COLOURS, THINGS = ["red", "green", "blue", "black", "white", "small", "big", "old"], ["lamp", "chair", "table", "game"]


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Titles of a user's items share a word."""
    return noun_dataset()


@pytest.fixture(scope="session")
def split(dataset: Dataset) -> Split:
    """Leave-one-out with both settings and ten candidates."""
    return leave_one_out(dataset, new_items=0.2, negatives=9)


@pytest.fixture(scope="session")
def config(
    backbone_folder: Path, write_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> PopulationConfig:
    """160 users with five of 32 items each, and user `all`, who has had everything."""
    home = tmp_path_factory.mktemp("population")
    names = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    rows = [(f"u{k // 5:03}", f"i{(k * 7 + k // 5) % 30:02}", k) for k in range(800)]
    rows += [("all", f"i{k:02}", k) for k in range(32)]
    titles = {f"i{k:02}": name for k, name in enumerate(names)}
    dataset = dataset_of(rows, titles, "shop").save(home / "shop")
    Index.build(dataset, NextItemConfig(epochs=1, hidden_size=8)).save(home / "index")
    evident = {"readout": "verdict", "options": {"evidence": True}}
    adapter = write_adapter(Backbone.from_pretrained(backbone_folder).model, home / "adapter", 1, evident)
    return PopulationConfig(
        home / "shop", adapter, home / "index", BackboneConfig(str(backbone_folder)), top_k=5, pool=20
    )


@pytest.fixture(scope="session")
def shop(config: PopulationConfig) -> Dataset:
    """The dataset of the config."""
    return Dataset.load(config.dataset)


@pytest.fixture(scope="session")
def expected(config: PopulationConfig, shop: Dataset) -> pl.DataFrame:
    """The rows of all users, made in one go."""
    return PopulationScorer(config, shop).recommend(read_population(shop))
