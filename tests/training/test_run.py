import json
import math
import os

import polars as pl
import pytest
import torch
from peft import PeftModel

from lorarec.errors import LorarecError
from lorarec.prompts import PromptBuilder
from lorarec.scoring import score_batch
from lorarec.training import train

QUICK = {"batch_size": 16, "negatives": 4, "rank": 4, "epochs": 1, "lr": 1e-2, "eval_users": 8, "eval_every": 2}


@pytest.mark.parametrize(
    ("readout", "loss", "untrained"),
    [("verdict", "listwise", math.log(5)), ("likelihood", "listwise", math.log(5)), ("likelihood", "next-token", math.log(351))],
)
def test_training_learns_and_writes_a_plain_adapter(backbone, pair, tmp_path, readout, loss, untrained) -> None:
    options = QUICK | {"readout": readout, "loss": loss, "epochs": 4, "eval_users": 0}
    out = train(backbone, [pair], tmp_path / "adapter", **options)
    assert json.loads((out / "lorarec.json").read_text())["training"]["loss"] < 0.95 * untrained
    builder = PromptBuilder(backbone.tokenizer, readout)
    model = PeftModel.from_pretrained(backbone.model, str(out)).base_model.model
    example = builder.example(["cold table"], ["hot lamp", "cold lamp"])
    with torch.no_grad():
        scores = score_batch(model, [example], builder)[0]
    assert scores[0] > scores[1]


def test_record(backbone, pairs, tmp_path) -> None:
    sources = [pairs("shop"), pairs("store", users=10)]
    out = train(backbone, sources, tmp_path / "adapter", seed=7, patience=5, **QUICK)
    record = json.loads((out / "lorarec.json").read_text())
    assert record["backbone"] == {"id": backbone.id, "fingerprint": backbone.fingerprint}
    assert [each["name"] for each in record["datasets"]] == ["shop", "store"]
    assert record["datasets"][0]["fingerprint"] == sources[0][0].fingerprint
    assert record["datasets"][0]["split"] == sources[0][1].fingerprint
    assert (record["seed"], record["readout"], record["loss"]) == (7, "verdict", "listwise")
    assert record["options"]["negatives"] == 4
    assert {"python", "torch", "transformers", "peft"} <= record["versions"].keys()
    training = record["training"]
    assert [each["step"] for each in training["evaluations"]] == [*range(2, training["steps"] + 1, 2)] + (
        [training["steps"]] if training["steps"] % 2 else []
    )
    assert training["validation"]["ndcg@1"] == max(each["ndcg@1"] for each in training["evaluations"])
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == backbone.id
    assert config["peft_type"] == "LORA"
    assert any((out / "tensorboard").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


def test_best_checkpoint_is_kept(backbone, pair, tmp_path, monkeypatch, difference) -> None:
    figures = iter([0.2, 0.9, 0.1, 0.1, 0.1, 0.1])
    monkeypatch.setattr("lorarec.training.validation.Validation.metrics", lambda *_: {"ndcg@1": next(figures)})
    best = train(backbone, [pair], tmp_path / "best", **QUICK | {"batch_size": 8, "lr": 1e-3})
    record = json.loads((best / "lorarec.json").read_text())
    assert record["training"]["validation"] == {"step": 4, "ndcg@1": 0.9}
    last = train(backbone, [pair], tmp_path / "last", **QUICK | {"batch_size": 8, "lr": 1e-3, "eval_users": 0})
    assert difference(best, last) > 0


def test_early_stopping(backbone, pair, tmp_path, monkeypatch) -> None:
    figures = iter([0.5, 0.4, 0.4, 0.4])
    monkeypatch.setattr("lorarec.training.validation.Validation.metrics", lambda *_: {"ndcg@1": next(figures)})
    out = train(backbone, [pair], tmp_path / "adapter", patience=2, **QUICK | {"batch_size": 4, "eval_every": 1})
    assert json.loads((out / "lorarec.json").read_text())["training"]["steps"] == 3


def test_second_round_starts_from_the_first(backbone, pair, tmp_path, difference, weights) -> None:
    first = train(backbone, [pair], tmp_path / "first", **QUICK)
    second = train(backbone, [pair], tmp_path / "second", start_from=first, **QUICK | {"lr": 1e-9, "rank": 9})
    assert difference(first, second) < 1e-6
    record = json.loads((second / "lorarec.json").read_text())
    assert record["start_from"]["path"] == str(first)
    assert next(iter(weights(second).values())).shape[0] in (4, 32, 64)


def test_dropout_and_seed_decide_the_weights(backbone, pair, tmp_path, difference) -> None:
    quick = QUICK | {"eval_users": 0}
    one, same, other = (
        train(backbone, [pair], tmp_path / name, seed=seed, **quick) for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    )
    assert difference(one, same) == 0
    assert difference(one, other) > 0


def test_backbone_is_left_alone(backbone, pair, tmp_path) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    train(backbone, [pair], tmp_path / "adapter", gradient_checkpointing=True, **QUICK)
    after = backbone.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not backbone.model.is_activation_checkpointing


def test_out_exists(backbone, pair, tmp_path) -> None:
    out = tmp_path / "adapter"
    out.mkdir()
    (out / "kept.txt").write_text("mine")
    with pytest.raises(LorarecError, match="adapter exists already"):
        train(backbone, [pair], out, **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    train(backbone, [pair], out, overwrite=True, **QUICK)
    assert not (out / "kept.txt").exists()


def test_adapter_of_another_backbone(backbone, backbones, pair, tmp_path) -> None:
    first = train(backbone, [pair], tmp_path / "first", **QUICK)
    for other in (backbones(seed=1), backbones(width=48)):
        with pytest.raises(LorarecError, match="belongs to"):
            train(other, [pair], tmp_path / "second", start_from=first, **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_bad_input_leaves_nothing_behind(backbone, pair, tmp_path) -> None:
    dataset, split = pair
    empty = type(split)(split.train.clear(), split.valid, split.test, split.info)
    for sources, options, message in [
        ([], {}, "no dataset"),
        ([(dataset, empty)], {}, "no training cases"),
        ([pair], {"negatives": 60}, "too few"),
        ([pair], {"rnak": 4}, "rnak"),
        ([pair], {"targets": "nowhere"}, "nowhere"),
        ([pair], {"start_from": tmp_path / "none"}, "none"),
        ([pair], {"max_tokens": 5}, "limit"),
    ]:
        with pytest.raises(LorarecError, match=message):
            train(backbone, sources, tmp_path / "adapter", **QUICK | options)
        assert not (tmp_path / "adapter").exists()
    assert not backbone.model.training


def test_diverged_run_is_named(backbone, pair, tmp_path) -> None:
    with torch.no_grad():
        backbone.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(LorarecError, match="--lr"):
        train(backbone, [pair], tmp_path / "adapter", **QUICK)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_read_only_disk(backbone, pair, tmp_path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LorarecError, match="cannot write"):
        train(backbone, [pair], tmp_path / "adapter", **QUICK)


def test_dataset_without_validation_cases(backbone, pair, tmp_path) -> None:
    dataset, split = pair
    bare = type(split)(split.train, split.valid.clear(), split.test, split.info)
    out = train(backbone, [(dataset, bare)], tmp_path / "adapter", **QUICK)
    assert json.loads((out / "lorarec.json").read_text())["training"]["validation"] is None


def test_dataset_alone_uses_its_stored_split(backbone, pair, tmp_path) -> None:
    dataset = pair[0].save(tmp_path / "data")
    out = train(backbone, [dataset], tmp_path / "adapter", **QUICK)
    stored = json.loads((tmp_path / "data" / "split" / "split.json").read_text())
    assert json.loads((out / "lorarec.json").read_text())["datasets"][0]["split"] == stored["fingerprint"]


def test_validation_is_a_seeded_sample_of_every_dataset(backbone, pairs, tmp_path) -> None:
    from lorarec.training.options import TrainOptions
    from lorarec.training.validation import Validation

    sources = [pairs("shop"), pairs("store")]
    builder = PromptBuilder(backbone.tokenizer)
    validation = Validation(sources, builder, TrainOptions(eval_users=11))
    assert len(validation) == 11
    again = Validation(sources, builder, TrainOptions(eval_users=11))
    assert again.examples == validation.examples
    alone = Validation(sources, builder, TrainOptions(eval_users=11, token_budget=1))
    figures = [
        each.metrics(lambda examples: score_batch(backbone.model, examples, builder)) for each in (validation, alone)
    ]
    assert len(alone.batches()) == 11
    assert len(validation.batches()) < 11
    assert figures[0] == figures[1]
    assert pl.DataFrame([figures[0]]).columns == ["ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10"]
