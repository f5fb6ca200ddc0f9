from dataclasses import fields

import pytest

from lorarec.errors import LorarecError
from lorarec.options import build_options
from lorarec.training.config import TrainingConfig, read_recipe


def test_defaults_are_the_papers() -> None:
    options = TrainingConfig()
    assert (options.r, options.lora_alpha, options.lora_dropout) == (16, 32, 0.05)
    assert (options.learning_rate, options.warmup_ratio, options.batch_size, options.epochs) == (2e-4, 0.05, 128, 2)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"rnak": 8}, "rnak"),
        ({"r": 0}, "option r must"),
        ({"r": 1.5}, "option r must"),
        ({"r": "many"}, "option r must"),
        ({"r": True}, "option r must"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"lora_dropout": 1.0}, "lora_dropout"),
        ({"readout": "guess"}, "readout"),
        ({"prefixes": 0}, "prefixes"),
        ({"eval_users": -1}, "eval_users"),
        ({"loss": "next-token"}, "likelihood"),
        ({"loss": "pointwise", "readout": "likelihood"}, "verdict"),
        ({"patience": 2, "eval_users": 0}, "patience"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], cause: str) -> None:
    with pytest.raises(LorarecError, match=cause):
        build_options(TrainingConfig, options)


def test_numbers_pass_as_yaml_writes_them(tmp_path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("learning_rate: 1e-4\nlora_alpha: 32\nbatch-size: 64\nprefixes: null\n")
    options = build_options(TrainingConfig, read_recipe(recipe, {field.name for field in fields(TrainingConfig)}))
    assert (options.learning_rate, options.lora_alpha, options.batch_size, options.prefixes) == (1e-4, 32.0, 64, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [("rnak: 8\n", "unknown key 'rnak'"), ("- r\n", "mapping"), ("a: [1\n", "not YAML"), ("", "mapping")],
)
def test_bad_recipes_are_one_line_errors(tmp_path, text: str, message: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    with pytest.raises(LorarecError, match=message) as caught:
        read_recipe(recipe, {"r"})
    assert "\n" not in str(caught.value)
    assert "recipe.yaml" in str(caught.value)


def test_missing_recipe(tmp_path) -> None:
    with pytest.raises(LorarecError, match=r"no\.yaml"):
        read_recipe(tmp_path / "no.yaml", {"r"})
