import pytest

from lorarec.errors import LorarecError
from lorarec.training.config import TrainingConfig, read_recipe


def test_defaults_are_the_papers() -> None:
    options = TrainingConfig()
    assert (options.rank, options.alpha, options.dropout) == (16, 32, 0.05)
    assert (options.lr, options.warmup, options.batch_size, options.epochs) == (2e-4, 0.05, 128, 2)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"rnak": 8}, "rnak"),
        ({"rank": 0}, "rank"),
        ({"rank": 1.5}, "rank"),
        ({"rank": "many"}, "rank"),
        ({"rank": True}, "rank"),
        ({"lr": 0.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"dropout": 1.0}, "dropout"),
        ({"readout": "guess"}, "readout"),
        ({"prefixes": 0}, "prefixes"),
        ({"eval_users": -1}, "eval_users"),
        ({"loss": "next-token"}, "likelihood"),
        ({"loss": "pointwise", "readout": "likelihood"}, "verdict"),
        ({"patience": 2, "eval_users": 0}, "patience"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], culprit: str) -> None:
    with pytest.raises(LorarecError, match=culprit):
        TrainingConfig.build(**options)


def test_numbers_pass_as_yaml_writes_them(tmp_path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("lr: 1e-4\nalpha: 32\nbatch-size: 64\nprefixes: null\n")
    options = TrainingConfig.build(**read_recipe(recipe, set(TrainingConfig().as_dict())))
    assert (options.lr, options.alpha, options.batch_size, options.prefixes) == (1e-4, 32.0, 64, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [("rnak: 8\n", "unknown key rnak"), ("- rank\n", "mapping"), ("a: [1\n", "not YAML"), ("", "mapping")],
)
def test_bad_recipes_are_one_line_errors(tmp_path, text: str, message: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    with pytest.raises(LorarecError, match=message) as caught:
        read_recipe(recipe, {"rank"})
    assert "\n" not in str(caught.value)
    assert "recipe.yaml" in str(caught.value)


def test_missing_recipe(tmp_path) -> None:
    with pytest.raises(LorarecError, match=r"no\.yaml"):
        read_recipe(tmp_path / "no.yaml", {"rank"})
