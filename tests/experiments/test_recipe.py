"""Recipes: their keys, and errors in them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorarec.errors import LorarecError
from lorarec.experiments import RECOMMENDERS, read_experiment
from lorarec.experiments.recipe import table_name
from lorarec.recommenders import BASELINES

RECIPES = Path(__file__).parents[2] / "recipes" / "tables"


@pytest.mark.parametrize(
    "path",
    [
        RECIPES / "sample.yaml",
        RECIPES / "general-domains.yaml",
        *sorted(RECIPES.glob("table*.yaml")),
        *sorted(RECIPES.glob("fusion*.yaml")),
    ],
    ids=lambda path: path.name,
)
def test_bundled_recipes_are_usable(path: Path) -> None:
    recipe = read_experiment(path)
    assert {row.system for row in recipe.rows.values()} <= RECOMMENDERS.keys()
    assert bool(recipe.paper) == bool(recipe.source)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("unlabelled*.yaml")), ids=lambda path: path.name)
def test_recipes_of_mixtures_compare_with_the_specific_adapter(path: Path) -> None:
    recipe = read_experiment(path)
    assert recipe.compare_with == "specific"
    assert {row.options.get("partner", "general") for row in recipe.rows.values()} == {"general", "hybrid", "random"}
    trained = [{key: row.options[key] for key in recipe.rows["specific"].options} for row in recipe.rows.values()]
    assert all(options == trained[0] for options in trained)


def test_the_sample_recipe_has_every_system() -> None:
    rows = read_experiment(RECIPES / "sample.yaml").rows.values()
    assert {row.system for row in rows} == RECOMMENDERS.keys() - BASELINES.keys()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("tables1-2-*.yaml")), ids=lambda path: path.name)
def test_every_trained_row_of_tables_1_and_2_has_the_same_number_of_trials(path: Path) -> None:
    recipe = read_experiment(path)
    combinations = {name: math.prod(map(len, row.tune.values())) for name, row in recipe.rows.items() if row.tune}
    assert combinations.keys() == recipe.rows.keys() - {"zero-shot"}
    assert min(combinations.values()) >= recipe.trials


def test_rows_of_the_curve_differ_in_their_number_of_domains() -> None:
    recipe = read_experiment(RECIPES / "general-domains.yaml")
    options = [row.options for row in recipe.rows.values()]
    assert [each.pop("domains") for each in options] == [1, 2, 4, len(recipe.general)]
    assert all(each == options[0] for each in options)


def test_rows_name_their_system_or_are_named_after_it(write_recipe: Callable[..., Path]) -> None:
    rows = {"bpr-mf": None, "wide": {"system": "bpr-mf", "options": {"learning_rate": "3e-3"}}}
    recipe = read_experiment(write_recipe(rows=rows))
    assert [row.system for row in recipe.rows.values()] == ["bpr-mf", "bpr-mf"]
    assert recipe.rows["wide"].options == {"learning_rate": 3e-3}


def test_base_gives_missing_keys(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    write_recipe(users=7)
    (tmp_path / "other.yaml").write_text("base: recipe.yaml\nseeds: [4, 5]\n")
    recipe = read_experiment(tmp_path / "other.yaml")
    assert (recipe.users, recipe.seeds, list(recipe.rows)) == (7, [4, 5], ["bpr-mf"])


def test_a_base_may_have_a_base_but_not_itself(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    write_recipe(users=7)
    (tmp_path / "second.yaml").write_text("base: recipe.yaml\nseeds: [4, 5]\n")
    (tmp_path / "third.yaml").write_text("base: second.yaml\nsettings: [new-item]\n")
    recipe = read_experiment(tmp_path / "third.yaml")
    assert (recipe.users, recipe.seeds, recipe.settings) == (7, [4, 5], ["new-item"])
    (tmp_path / "second.yaml").write_text("base: third.yaml\n")
    with pytest.raises(LorarecError, match=r"third.yaml, key base: .*third.yaml is based on itself"):
        read_experiment(tmp_path / "third.yaml")


def test_tables_are_named_by_setting_and_share() -> None:
    assert table_name("warm", None) == "warm"
    assert table_name("new-item", 0.1) == "new-item 10%"


def test_rows_that_need_no_other_domain_take_none(write_recipe: Callable[..., Path]) -> None:
    rows = {
        "mixture-equal": {"options": {"partner": "random"}},
        "unisrec": {"tune": {"text_encoder": ["lsa"], "pretrain_epochs": [0]}},
    }
    assert read_experiment(write_recipe(rows=rows, backbone="embedded")).general == []


def _row(**keys: Any) -> dict[str, Any]:
    return {"rows": {"mine": {"system": "bpr-mf", **keys}}}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"datasets": "x"}, "unknown key 'datasets'"),
        ({"dataset": None}, "key dataset: it is missing"),
        ({"rows": None}, "key rows: it is missing"),
        ({"rows": ["sasrec"]}, "key rows: must be row name"),
        (
            {"rows": {"popularity": {}}},
            "key rows.popularity: popularity is a baseline, which every table has: leave",
        ),
        ({"rows": {"a/b": {"system": "sasrec"}}}, "key rows.a/b: a row's name"),
        ({"rows": {"sasrek": {}}}, "key rows.sasrek.system: no system 'sasrek': choose one of bpr-mf"),
        (_row(option={}), "key rows.mine.option: unknown key"),
        ({"rows": {"fusion": {"tune": {"cases": [10]}}}}, "key rows.fusion.tune: fusion is fitted on the validation"),
        (_row(options={"depth": 2}), "key rows.mine.options: unknown option 'depth': choose from batch_size, epochs"),
        (_row(options={"seed": 2}), "key rows.mine.options: unknown option 'seed'"),
        (_row(options={"learning_rate": 0}), "key rows.mine.options: option learning_rate must be positive, got 0"),
        (_row(options={"learning_rate": "fast"}), "key rows.mine.options: option learning_rate must be float"),
        (_row(tune={"learning_rate": 0.1}), "key rows.mine.tune.learning_rate: must be a list"),
        (_row(tune={"learning_rate": [0.1, -1]}), "key rows.mine.tune: option learning_rate must be positive, got -1"),
        ({"rows": {"general": {"options": {"r": "big"}}}}, "key rows.general.options: option r must be int"),
        ({"rows": {"tallrec": {"options": {"loss": "listwise"}}}}, "key rows.tallrec.options: unknown option 'loss'"),
        ({"settings": ["cold"]}, "key settings: must be warm or new-item, got 'cold'"),
        ({"few_shot": [2]}, "key few_shot: must be shares"),
        ({"seeds": []}, "key seeds: must be different values"),
        ({"seeds": [1, 1]}, "key seeds: must be different values"),
        ({"seeds": ["x"]}, "key seeds: must be whole numbers"),
        ({"users": 0}, "key users: must be a whole number"),
        ({"candidates": "some"}, "key candidates: must be stored or all, got 'some'"),
        ({"candidates": ["all"]}, "key candidates: must be stored or all, got ['all']"),
        ({"candidates": "all", "pool": 0}, "key pool: must be a whole number"),
        ({"split": 3}, "key split: must be options"),
        ({"compare_with": "nobody"}, "key compare_with: no row 'nobody'"),
        ({"correction": "none"}, "key correction: must be one of holm, benjamini-hochberg, got 'none'"),
        ({"dtype": "int8"}, "key dtype: must be one of auto, float32, bfloat16, float16, got 'int8'"),
        ({"paper": {"nobody": {}}}, "key paper: unknown 'nobody'"),
        (
            {"rows": {"zero-shot": {}, "ease": {}}},
            "key backbone: it is missing, and row zero-shot needs a language model",
        ),
        (
            {"rows": {"mine": {"system": "fusion"}, "text-similarity": {"options": {"text_encoder": None}}}},
            "key backbone: it is missing, and rows mine, text-similarity need a language model",
        ),
        (
            {"rows": {"unisrec": {"options": {"text_encoder": "lsa"}}, "ease": {}}},
            "key general: it is missing, and row unisrec needs general domains",
        ),
        (
            {"rows": {"mixture-equal": {"tune": {"partner": ["random", "hybrid"]}}}, "backbone": "embedded"},
            "key general: it is missing, and row mixture-equal needs general domains",
        ),
        (
            {"rows": {"general": {"options": {"domains": 3}}}, "backbone": "embedded", "general": ["a", "b"]},
            "key rows.general: option domains is 3, but general names 2",
        ),
        ({"paper": {"bpr-mf": {"cold": {}}}}, "key paper.bpr-mf: unknown 'cold'"),
        ({"paper": {"bpr-mf": {"warm": {"ndcg": 1}}}}, "key paper.bpr-mf.warm: unknown 'ndcg'"),
        (
            {"candidates": "all", "paper": {"bpr-mf": {"warm": {"hr@10": 1}}}},
            "key paper.bpr-mf.warm: unknown 'hr@10': choose one of recall@10",
        ),
        ({"paper": {"bpr-mf": {"warm": {"mrr": "x"}}}}, "key paper.bpr-mf.warm.mrr: must be a number"),
    ],
)
def test_bad_recipes_are_one_line(write_recipe: Callable[..., Path], keys: dict[str, Any], message: str) -> None:
    path = write_recipe(**keys)
    with pytest.raises(LorarecError) as error:
        read_experiment(path)
    assert str(error.value).startswith(f"recipe {path}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
