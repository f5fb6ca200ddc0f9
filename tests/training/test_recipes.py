import dataclasses
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig

from lorarec.options import build_options
from lorarec.training import TrainingConfig, read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
#: Recipes of `lorarec train`; the others are of tables or launchers.
TRAINING = ("embedded.yaml", "general.yaml", "specific.yaml", "molorec-7b.yaml")
LAUNCHERS = ("fsdp.yaml", "deepspeed.yaml")


@pytest.mark.parametrize("name", TRAINING)
def test_recipes_hold_options_of_train(name: str) -> None:
    fields = {field.name for field in dataclasses.fields(TrainingConfig)}
    recipe = read_recipe(RECIPES / "train" / name, fields | {"backbone", "dtype"})
    build_options(TrainingConfig, {name: value for name, value in recipe.items() if name in fields})


@pytest.mark.parametrize("name", LAUNCHERS)
def test_accelerate_reads_its_configurations(name: str) -> None:
    assert ClusterConfig.from_yaml_file(str(RECIPES / "accelerate" / name)).num_processes == 8
