"""The verb `train`."""

import json
from pathlib import Path

import pytest

from lorarec.data import leave_one_out
from lorarec.errors import LorarecError
from lorarec.io.artefacts import read_json
from tests.command_line import run
from tests.factories import dataset_of, numbered_titles, save_backbone

QUICK = ("--eval-users", "4", "--epochs", "1", "--r", "2", "--batch-size", "8", "--negatives", "3")


def _run(*words: object) -> str:
    return run("train", *words).stdout


@pytest.fixture
def home(tiny_backbone, tmp_path: Path) -> Path:
    """A backbone folder `backbone` and a dataset folder `shop` of 12 users with 5 of 30 items each."""
    save_backbone(tiny_backbone, tmp_path / "backbone")
    rows = [(f"u{user}", f"i{(user * 7 + k * 3) % 30}", k) for user in range(12) for k in range(5)]
    dataset = dataset_of(rows, numbered_titles(30, digits=1), "shop").save(tmp_path / "shop")
    leave_one_out(dataset, new_items=0, negatives=5).save(tmp_path / "shop" / "split")
    return tmp_path


def test_options_win_over_the_recipe(home: Path) -> None:
    (home / "recipe.yaml").write_text(
        f"datasets: [{home}/shop]\nbackbone: {home}/backbone\nlr: 1e-3\nalpha: 7\nfew-shot: 0.5\n"
    )
    figures = json.loads(
        _run("--recipe", home / "recipe.yaml", "--lora-alpha", "9", "--out", home / "a", *QUICK, "--json")
    )
    record = read_json(home / "a" / "lorarec.json")
    assert (record["options"]["learning_rate"], record["options"]["lora_alpha"], record["options"]["r"]) == (1e-3, 9, 2)
    assert figures["cases_per_epoch"] == 12
    assert figures["users_set_aside"] == 0
    assert figures["validation"]["ndcg@1"] == record["training"]["validation"]["ndcg@1"]


def test_an_evidence_model_is_named_or_given_by_its_options(home: Path) -> None:
    (home / "recipe.yaml").write_text(
        f"datasets: {home}/shop\nbackbone: {home}/backbone\nevidence_model: {{epochs: 1, hidden_size: 4}}\n"
    )
    text = '{"epochs": 1, "hidden_size": 8}'
    for name, words in {"recipe": (), "text": ("--evidence-model", text)}.items():
        _run("--recipe", home / "recipe.yaml", *words, "--out", home / name, *QUICK)
    sizes = {
        name: read_json(home / name / "lorarec.json")["options"]["evidence_model"]["hidden_size"]
        for name in ("recipe", "text")
    }
    assert sizes == {"recipe": 4, "text": 8}
    for words, message in (
        (("--evidence-model", "bert4rec"), "must be sasrec or a mapping of its options, got 'bert4rec'"),
        (("--evidence-model", "sasrec", "--no-evidence"), "use it with --evidence"),
    ):
        with pytest.raises(LorarecError, match=message):
            _run(home / "shop", "--backbone", home / "backbone", "--out", home / "c", *QUICK, *words)


def test_second_round_from_the_shell(home: Path) -> None:
    common = (home / "shop", "--backbone", home / "backbone", *QUICK)
    assert "validation ndcg@1" in _run(*common, "--out", home / "one")
    _run(*common, "--out", home / "two", "--from", home / "one", "--resume")
    assert read_json(home / "two" / "lorarec.json")["start_from"]["path"] == str(home / "one")


def test_hard_negatives_come_from_an_index_of_the_training_part(home: Path) -> None:
    common = (home / "shop", "--backbone", home / "backbone", *QUICK)
    for name, words in (("plain", ()), ("hard", ("--hard-negatives", "0.7"))):
        _run(*common, *words, "--out", home / name)
    assert read_json(home / "hard" / "lorarec.json")["options"]["hard_negatives"] == 0.7
    weights = [(home / name / "adapter_model.safetensors").read_bytes() for name in ("plain", "hard")]
    assert weights[0] != weights[1]


def test_bad_input_is_one_line(home: Path) -> None:
    (home / "bad.yaml").write_text("rnak: 3\n")
    for words, message in [
        ((home / "shop",), "--out"),
        (("--out", home / "a"), "dataset"),
        ((home / "shop", "--out", home / "a", "--recipe", home / "bad.yaml"), "unknown key 'rnak'"),
        ((home / "shop", "--out", home / "a", "--learning-rate", "-1"), "option --learning-rate"),
        ((home / "none", "--out", home / "a", "--backbone", home / "backbone"), "none"),
        ((home / "shop", "--out", home / "a", "--backbone", home / "backbone", "--few-shot", "7"), "few-shot"),
    ]:
        with pytest.raises(LorarecError, match=message) as caught:
            _run(*words)
        assert "\n" not in str(caught.value)
        assert not (home / "a").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epochs: 2.5", r"recipe .*bad\.yaml, key epochs: 2\.5 cannot be used: .* integer"),
        ("learning_rate: fast", r"recipe .*bad\.yaml, key learning_rate: 'fast' cannot be used: .* number"),
        (
            "loss: best",
            r"recipe .*bad\.yaml, key loss: 'best' cannot be used: .* 'listwise', 'pointwise', 'next-token'",
        ),
        ("learning_rate: true", r"recipe .*bad\.yaml, key learning_rate: True cannot be used: only switches"),
        ("lr: 1e-3\nlearning_rate: 1e-2", "recipe .*bad.yaml has both lr and learning_rate"),
        ("from: [1, 2]", r"recipe .*bad\.yaml, key from: "),
        ("trust_remote_code: true", "unknown key 'trust_remote_code'"),
        ("learning_rate: -1", "option --learning-rate must be positive"),
        ("learning_rate: .inf", "option --learning-rate must be a finite number, got inf"),
        ("weight_decay: .nan", "option --weight-decay must be a finite number, got nan"),
        ("epochs: 1\nepochs: 2", r"bad\.yaml, line 2 is not YAML: the key 'epochs' is there twice"),
    ],
)
def test_recipes_are_checked(home: Path, line: str, message: str) -> None:
    (home / "bad.yaml").write_text(f"{line}\n")
    with pytest.raises(LorarecError, match=message):
        _run(home / "shop", "--out", home / "a", "--recipe", home / "bad.yaml")


@pytest.mark.parametrize("recipe", sorted((Path(__file__).parents[2] / "recipes" / "train").glob("*.yaml")))
def test_bundled_recipes_are_options(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match=r"nowhere is not a dataset folder"):
        _run(tmp_path / "nowhere", "--out", tmp_path / "a", "--recipe", recipe)


def test_trackers_are_named_on_the_command_line_or_in_the_recipe(home: Path) -> None:
    (home / "recipe.yaml").write_text(
        f"datasets: {home}/shop\nbackbone: {home}/backbone\nreport_to: [tensorboard]\nrun_name: first\n"
    )
    _run("--recipe", home / "recipe.yaml", "--out", home / "logged", *QUICK)
    assert any((home / "logged" / "tensorboard").iterdir())
    _run("--recipe", home / "recipe.yaml", "--report-to", "none", "--out", home / "plain", *QUICK)
    assert not (home / "plain" / "tensorboard").exists()
    records = [read_json(home / name / "lorarec.json") for name in ("logged", "plain")]
    assert records[0] == records[1]
    with pytest.raises(LorarecError, match="option --report-to has no tracker 'comet': choose from auto, none, "):
        _run(home / "shop", "--report-to", "comet", "--out", home / "other", *QUICK)
