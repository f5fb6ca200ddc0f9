"""Recipes of all kinds of tables are run by one function."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lorarec.errors import LorarecError
from lorarec.experiments import TABLE_KINDS, run_recipe
from lorarec.experiments.recipe_keys import read_table_kind

RECIPES = Path(__file__).parents[2] / "recipes" / "tables"


def test_the_key_table_selects_the_kind() -> None:
    assert read_table_kind(RECIPES / "tables1-2-toys.yaml") == "ranking"
    assert read_table_kind(RECIPES / "reclora-sample.yaml") == "clicks"
    assert read_table_kind(RECIPES / "reclora-ml-1m.yaml") == "clicks"  # as the recipe that it is based on
    assert read_table_kind(RECIPES / "figures4-5.yaml") == "weights"


def test_an_unknown_kind_is_refused(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = write_recipe(table="clocks")
    with pytest.raises(LorarecError) as error:
        run_recipe(path, tmp_path / "out")
    assert str(error.value) == f"recipe {path}, key table: must be one of {', '.join(TABLE_KINDS)}, got 'clocks'"
    assert not (tmp_path / "out").exists()


def test_a_key_of_another_kind_is_refused(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match="has an unknown key 'trials': choose from analyses"):
        run_recipe(write_recipe(table="clicks", trials=3, settings=None, rows=["din"]), tmp_path / "out")
