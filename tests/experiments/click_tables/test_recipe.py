"""Recipes of RecLoRA's tables: their rows, and errors in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorarec.errors import LorarecError
from lorarec.experiments import ClicksRecipe, read_clicks
from lorarec.experiments.click_tables.rows import ANALYSES, MAIN

RECIPES = Path(__file__).parents[3] / "recipes" / "tables"


@pytest.mark.parametrize("name", ["reclora-ml-100k", "reclora-ml-1m"])
def test_full_recipes_have_every_row_and_analysis(name: str) -> None:
    recipe = read_clicks(RECIPES / f"{name}.yaml")
    rows = recipe.every_row
    assert {row.name.rpartition("-seed")[0] for row in rows.values()} >= set(MAIN)
    assert list(rows)[:3] == ["din-seed1", "din-seed2", "din-seed3"]
    assert list(recipe.points) == list(ANALYSES)
    assert recipe.shared_options == {
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 0.002,
        "max_title_tokens": 16,
        "samples": 2048,
        "test_events": 5000,
    }


def test_the_sample_recipe_has_the_rows_that_are_compared() -> None:
    rows = read_clicks(RECIPES / "reclora-sample.yaml").every_row
    assert set(rows) == {f"{kind}-seed{seed}" for kind in ("din", "rella", "reclora") for seed in (1, 2)}


def test_numbers_are_read_as_meant(write_clicks: Callable[..., Path]) -> None:
    recipe = read_clicks(write_clicks(rows="din"))
    assert recipe.options["learning_rate"] == 0.01
    assert recipe.rows == ["din"]
    assert ClicksRecipe("x").every_row.keys() >= {"deepfm-seed42", "ctr-bert-seed42", "no-few2many", "id-history-10"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"row": ["din"]}, "has an unknown key 'row': choose from analyses, backbone"),
        ({"dataset": None}, "key dataset: it is missing"),
        ({"dataset": 3}, "key dataset: must be a text, got 3"),
        ({"analyses": ["colour"]}, "key analyses: must be of size, id-history, text-history, samples, left out"),
        ({"analyses": ["size", "size"]}, "key analyses: must be different values"),
        ({"rows": ["dinn"]}, "key rows: no row 'dinn': choose from deepfm"),
        ({"rows": []}, "key rows: must be different values"),
        ({"rows": {"din": None}}, "key rows: must be a list"),
        ({"ctr_model": "rella"}, "key ctr_model: no click-through model 'rella': choose one of deepfm"),
        ({"seeds": [-1]}, "key seeds: must be whole numbers from 0 on, got -1"),
        ({"samples": 0}, "key samples: must be a whole number from 1 on, got 0"),
        ({"test_events": "all"}, "key test_events: must be a whole number from 1 on, got 'all'"),
        ({"options": ["learning_rate"]}, "key options: must be options of `lorarec personal train`"),
        ({"options": {"depth": 2}}, "key options: unknown option 'depth': choose from batch_size"),
        ({"options": {"learning_rate": -1}}, "key options: option learning_rate must be positive, got -1"),
        ({"options": {"learning_rate": "fast"}}, "key options: option learning_rate must be float, got 'fast'"),
        ({"options": {"samples": 3}}, "key options.samples: use the key samples"),
        ({"options": {"seed": 3}}, "key options.seed: use the key seeds"),
    ],
)
def test_bad_recipes_are_one_line(write_clicks: Callable[..., Path], keys: dict[str, Any], message: str) -> None:
    path = write_clicks(**keys)
    with pytest.raises(LorarecError) as error:
        read_clicks(path)
    assert str(error.value).startswith(f"recipe {path}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
