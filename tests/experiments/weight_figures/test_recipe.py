"""Recipes of MoLoRec's Figures 4 and 5, and errors in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorarec.errors import LorarecError
from lorarec.experiments import read_weights

RECIPES = Path(__file__).parents[3] / "recipes" / "tables"


def test_the_bundled_recipe_is_usable() -> None:
    recipe = read_weights(RECIPES / "figures4-5.yaml")
    assert recipe.settings == ["warm", "new-item"]
    assert recipe.prompts == [10, 25, 50, 100, 200]
    assert recipe.options["learning_rate"] == 1e-3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rows": {}}, "has an unknown key 'rows': choose from adapters, backbone"),
        ({"dataset": None}, "key dataset: it is missing"),
        ({"general": None}, "key adapters: give either adapters or, to have them trained, general domains"),
        ({"adapters": ["a", "b"]}, "key adapters: give either adapters or, to have them trained, general domains"),
        ({"general": None, "adapters": ["a"]}, "key adapters: must be the folders of a general and a specific adapter"),
        ({"general": None, "adapters": ["a", "b"]}, "key options: the adapters given are trained already"),
        ({"options": {"depth": 2}}, "key options: unknown option 'depth': choose from balance"),
        ({"options": {"r": "big"}}, "key options: option r must be int"),
        ({"settings": ["cold"]}, "key settings: must be warm or new-item, got 'cold'"),
        ({"prompts": [0]}, "key prompts: must be whole numbers from 1 on, got 0"),
        ({"prompts": []}, "key prompts: must be different values"),
        ({"seeds": ["x"]}, "key seeds: must be whole numbers"),
        ({"users": 0}, "key users: must be a whole number"),
    ],
)
def test_bad_recipes_are_one_line(write_weights: Callable[..., Path], keys: dict[str, Any], message: str) -> None:
    path = write_weights(**keys)
    with pytest.raises(LorarecError) as error:
        read_weights(path)
    assert str(error.value).startswith(f"recipe {path}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
