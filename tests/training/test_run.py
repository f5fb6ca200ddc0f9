import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch

from lorarec.errors import LorarecError
from lorarec.io.locks import only_writer
from lorarec.lora import prompt_config, read_adapter
from lorarec.prompts import LATEST, PromptBuilder
from lorarec.ranking import Ranker
from lorarec.scoring import score_batch, tokens_per_pass
from lorarec.training import TrainingConfig, train
from lorarec.training.run import warmup_steps
from lorarec.training.validation import Validation
from tests.factories import hot_backbone, hot_log

QUICK = {"batch_size": 16, "negatives": 4, "r": 4, "epochs": 1, "learning_rate": 1e-2, "eval_users": 8, "eval_steps": 2}


def quick_train(backbone, sources, out, *, start_from=None, resume=False, overwrite=False, **options) -> Path:
    """Train with few cases; return the folder of the adapter."""
    config = TrainingConfig(**QUICK | options)
    adapter = train(backbone, sources, out, config, start_from=start_from, resume=resume, overwrite=overwrite)
    assert adapter.folder == out
    return out


@pytest.fixture(scope="module")
def shared():
    """A backbone for all tests here: training does not change it."""
    return hot_backbone()


@pytest.fixture(scope="module")
def first(shared, tmp_path_factory):
    """An adapter trained on two datasets."""
    sources = [hot_log("shop"), hot_log("store", users=10)]
    return quick_train(shared, sources, tmp_path_factory.mktemp("first") / "adapter", seed=7, patience=5)


@pytest.mark.parametrize(
    ("readout", "loss", "below"),
    [
        ("verdict", "listwise", 0.8 * math.log(5)),
        ("verdict", "pointwise", 0.97 * (math.log(5) - 0.8 * math.log(4))),  # the loss of predicting one yes in five
        ("likelihood", "next-token", 0.8 * math.log(351)),
    ],
)
def test_training_learns(shared, shop, tmp_path, readout, loss, below) -> None:
    options = {"readout": readout, "loss": loss, "epochs": 4, "learning_rate": 5e-3, "eval_users": 0}
    out = quick_train(shared, [shop], tmp_path / "adapter", **options)
    assert json.loads((out / "lorarec.json").read_text())["training"]["loss"] < below


def test_record(shared, first) -> None:
    record = json.loads((first / "lorarec.json").read_text())
    dataset, split = hot_log("shop")
    assert record["backbone"] == {"id": shared.id, "fingerprint": shared.fingerprint}
    assert [each["name"] for each in record["datasets"]] == ["shop", "store"]
    assert record["datasets"][0] == {"name": "shop", "fingerprint": dataset.fingerprint, "split": split.fingerprint}
    assert (record["seed"], record["readout"], record["loss"]) == (7, "verdict", "listwise")
    assert record["options"]["negatives"] == 4
    assert {"python", "torch", "transformers", "peft"} <= record["versions"].keys()
    training = record["training"]
    due = list(range(2, training["steps"] + 1, 2))
    assert [each["step"] for each in training["evaluations"]] == sorted({*due, training["steps"]})
    for each in training["evaluations"]:  # the same order in a resumed run
        assert list(each) == ["step", *sorted(each.keys() - {"step"})]
    assert training["validation"]["ndcg@1"] == max(each["ndcg@1"] for each in training["evaluations"])
    config = json.loads((first / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["peft_type"]) == (shared.id, "LORA")
    assert any((first / "tensorboard").iterdir())
    assert [path.name for path in first.parent.iterdir()] == ["adapter"]


def test_best_checkpoint_is_restored(shared, shop, tmp_path, monkeypatch, largest_difference) -> None:
    figures = iter([0.2, 0.9, 0.1])
    quick = {"samples": 48, "batch_size": 8, "learning_rate": 1e-3}
    monkeypatch.setattr("lorarec.training.validation.Validation.metrics", lambda *_: {"ndcg@1": next(figures)})
    best = quick_train(shared, [shop], tmp_path / "best", **quick)
    record = json.loads((best / "lorarec.json").read_text())
    assert record["training"]["validation"] == {"step": 4, "ndcg@1": 0.9}
    last = quick_train(shared, [shop], tmp_path / "last", eval_users=0, **quick)
    assert largest_difference(best, last) > 0


def test_early_stopping(shared, shop, tmp_path, monkeypatch) -> None:
    figures = iter([0.5, 0.4, 0.4, 0.4])
    monkeypatch.setattr("lorarec.training.validation.Validation.metrics", lambda *_: {"ndcg@1": next(figures)})
    out = quick_train(shared, [shop], tmp_path / "adapter", patience=2, batch_size=4, eval_steps=1)
    assert json.loads((out / "lorarec.json").read_text())["training"]["steps"] == 3


def test_second_round_starts_from_the_first(shared, shop, first, tmp_path, largest_difference) -> None:
    quick = {"samples": 32, "eval_users": 0, "learning_rate": 1e-9, "r": 9}
    second = quick_train(shared, [shop], tmp_path / "second", start_from=first, **quick)
    assert largest_difference(first, second) < 1e-6
    record = json.loads((second / "lorarec.json").read_text())
    assert record["start_from"]["path"] == str(first)
    assert record["start_from"]["datasets"] == json.loads((first / "lorarec.json").read_text())["datasets"]
    assert json.loads((second / "adapter_config.json").read_text())["r"] == 4
    assert [record["options"][name] for name in ("r", "lora_alpha", "target_modules")] == [4, 32.0, "all-linear"]


@pytest.mark.parametrize("layers", ["q_proj,v_proj", "model.layers.0.self_attn.q_proj,model.layers.1.mlp.up_proj"])
def test_second_round_records_the_layers_of_the_first(layers, shared, shop, tmp_path) -> None:
    quick = {"samples": 16, "eval_users": 0}
    first = quick_train(shared, [shop], tmp_path / "first", target_modules=layers, **quick)
    second = quick_train(shared, [shop], tmp_path / "second", start_from=first, **quick)
    assert read_adapter(second).record.options["target_modules"] == layers


@pytest.mark.parametrize(
    ("options", "template"),
    [({}, "verdict-v1"), ({"template": "verdict"}, LATEST["verdict"]), ({"readout": "likelihood"}, "likelihood-v2")],
)
def test_second_round_has_the_template_of_the_first(shared, shop, first, tmp_path, options, template) -> None:
    former = tmp_path / "former"
    shutil.copytree(first, former)
    record = json.loads((former / "lorarec.json").read_text())
    record["options"]["template"] = "verdict-v1"
    (former / "lorarec.json").write_text(json.dumps(record))
    second = quick_train(shared, [shop], tmp_path / "second", start_from=former, samples=4, eval_users=0, **options)
    assert prompt_config(read_adapter(second)).template == template


def test_seed_decides_the_weights_and_backbone_is_unchanged(shared, shop, tmp_path, largest_difference) -> None:
    before = {name: tensor.clone() for name, tensor in shared.model.state_dict().items()}
    quick = QUICK | {"samples": 32, "eval_users": 0, "gradient_checkpointing": True}
    one, same, other = (
        quick_train(shared, [shop], tmp_path / name, seed=seed, **quick)
        for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    )
    assert largest_difference(one, same) == 0
    assert largest_difference(one, other) > 0
    after = shared.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in shared.model.modules())


def test_out_exists(shared, shop, tmp_path) -> None:
    out = tmp_path / "adapter"
    out.mkdir()
    (out / "kept.txt").write_text("mine")
    with pytest.raises(LorarecError, match="adapter exists already"):
        quick_train(shared, [shop], out)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    with pytest.raises(LorarecError, match="adapter is no adapter folder"):
        quick_train(shared, [shop], out, overwrite=True)
    assert (out / "kept.txt").read_text() == "mine"
    (out / "kept.txt").unlink()
    quick = {"samples": 16, "eval_users": 0}
    quick_train(shared, [shop], out, seed=1, **quick)
    before = (out / "adapter_model.safetensors").read_bytes()
    quick_train(shared, [shop], out, seed=2, overwrite=True, **quick)
    assert (out / "adapter_model.safetensors").read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_the_same_training_writes_the_same_bytes(shared, shop, tmp_path) -> None:
    one, other = (quick_train(shared, [shop], tmp_path / name, seed=3, samples=32) for name in ("one", "other"))
    for name in ("adapter_config.json", "adapter_model.safetensors", "lorarec.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    adapter = read_adapter(one)
    assert adapter.fingerprint == read_adapter(other).fingerprint
    # Sets have another order in another process.
    assert adapter.config["target_modules"] == sorted(adapter.config["target_modules"])
    # In another process a set would be in another order.
    targets = json.loads((one / "adapter_config.json").read_text())["target_modules"]
    assert len(targets) == 7
    assert targets == sorted(targets)


def test_two_runs_do_not_share_a_folder(shared, shop, tmp_path) -> None:
    folder = tmp_path / "adapter.checkpoints"
    folder.mkdir()
    busy = pytest.raises(LorarecError, match=r"another run is writing to .*adapter\.checkpoints")
    with only_writer(folder), busy:
        quick_train(shared, [shop], tmp_path / "adapter", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter.checkpoints"]


def test_adapter_of_another_backbone(shop, first, tmp_path) -> None:
    for other in (hot_backbone(seed=1), hot_backbone(width=48)):
        with pytest.raises(LorarecError, match="belongs to"):
            quick_train(other, [shop], tmp_path / "second", start_from=first)
    assert not list(tmp_path.iterdir())


def test_bad_input_leaves_nothing_behind(shared, shop, tmp_path) -> None:
    dataset, split = shop
    empty = type(split)(split.train.clear(), split.valid, split.test, split.info)
    for sources, options, message in [
        ([], {}, "no dataset"),
        ([(dataset, empty)], {}, "no training cases"),
        ([shop], {"negatives": 60}, "too few"),
        ([shop], {"target_modules": "nowhere"}, "nowhere"),
        ([shop], {"start_from": tmp_path / "none"}, "none"),
        ([shop], {"max_tokens": 5}, "limit"),
    ]:
        with pytest.raises(LorarecError, match=message):
            quick_train(shared, sources, tmp_path / "adapter", **options)
        assert not (tmp_path / "adapter").exists()
    assert not shared.model.training


def test_diverged_run_is_named(backbone, shop, tmp_path) -> None:
    with torch.no_grad():
        backbone.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(LorarecError, match="lower the learning rate"):
        quick_train(backbone, [shop], tmp_path / "adapter")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_read_only_disk(shared, shop, tmp_path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LorarecError, match="cannot write"):
        quick_train(shared, [shop], tmp_path / "adapter")


def test_dataset_without_validation_cases(shared, shop, tmp_path) -> None:
    dataset, split = shop
    bare = type(split)(split.train, split.valid.clear(), split.test, split.info)
    out = quick_train(shared, [(dataset, bare)], tmp_path / "adapter", samples=16)
    assert json.loads((out / "lorarec.json").read_text())["training"]["validation"] is None


def test_dataset_without_a_split_uses_its_stored_split(shared, shop, tmp_path) -> None:
    dataset = shop[0].save(tmp_path / "data")
    out = quick_train(shared, [dataset], tmp_path / "adapter", samples=16, eval_users=0)
    stored = json.loads((tmp_path / "data" / "split" / "split.json").read_text())
    assert json.loads((out / "lorarec.json").read_text())["datasets"][0]["split"] == stored["fingerprint"]


def test_validation_is_a_seeded_sample_of_every_dataset(shared) -> None:
    sources = [hot_log("shop"), hot_log("store")]
    builder = PromptBuilder(shared.tokenizer)
    validation = Validation(sources, builder, TrainingConfig(eval_users=11))
    assert len(validation) == 11
    again = Validation(sources, builder, TrainingConfig(eval_users=11))
    assert again.examples == validation.examples
    figures = [
        validation.metrics(lambda examples: score_batch(shared.model, examples, builder), budget)
        for budget in (2048, 1)
    ]
    assert len(validation.batches(1)) == 11
    assert len(validation.batches(2048)) < 11
    assert figures[0] == figures[1]
    assert list(figures[0]) == ["ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10"]


def test_validation_reads_as_many_tokens_in_a_pass_as_ranking_does(shared, shop, tmp_path, monkeypatch) -> None:
    budgets: list[int] = []
    metrics = Validation.metrics

    def recorded(self, forward, token_budget, *processes):
        budgets.append(token_budget)
        return metrics(self, forward, token_budget, *processes)

    monkeypatch.setattr(Validation, "metrics", recorded)
    quick_train(shared, [shop], tmp_path / "default", samples=16)
    quick_train(shared, [shop], tmp_path / "given", samples=16, token_budget=700)
    assert set(budgets) == {tokens_per_pass(shared.model), 700}


def test_rate_of_no_whole_run_is_zero() -> None:
    for share in (0, 0.05, 0.5, 0.99):
        for steps in (1, 2, 3, 7, 20, 1000):
            assert 0 <= warmup_steps(share, steps) < steps
    assert [warmup_steps(0.05, steps) for steps in (1, 2, 20, 21, 1000)] == [0, 1, 1, 2, 50]


@pytest.mark.parametrize(("samples", "warmup"), [(16, 0.05), (16, 0.0), (16, 0.99), (32, 0.05), (48, 0.99)])
def test_a_training_of_few_steps_moves_the_adapter(shared, shop, tmp_path, caplog, samples, warmup) -> None:
    options = {"samples": samples, "warmup_ratio": warmup, "eval_users": 0}
    out = quick_train(shared, [shop], tmp_path / "adapter", **options)
    assert json.loads((out / "lorarec.json").read_text())["training"]["steps"] == samples // 16
    assert all(b.abs().max() > 1e-4 for _, b in read_adapter(out).tensors.values())
    assert not caplog.records


def test_training_that_changed_nothing_is_reported(shared, shop, first, tmp_path, caplog) -> None:
    quick = QUICK | {"samples": 16, "eval_users": 0, "learning_rate": 1e-300}
    out = quick_train(shared, [shop], tmp_path / "zero", **quick)
    assert f"adapter {out} changes nothing, since B is zero in all layers" in caplog.text
    assert read_adapter(out).is_zero
    caplog.clear()
    out = quick_train(shared, [shop], tmp_path / "again", start_from=first, **quick)
    assert f"adapter {out} equals the one that it started from" in caplog.text


def test_weights_that_are_no_numbers_are_not_written(shared, shop, tmp_path, monkeypatch) -> None:
    """The loss of the last step does not depend on the weights after it."""
    step = torch.optim.AdamW.step

    def diverge(self, closure=None):
        result = step(self, closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.fill_(float("inf"))
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", diverge)
    with pytest.raises(LorarecError, match="the training diverged, lower the learning rate"):
        quick_train(shared, [shop], tmp_path / "adapter", samples=16, eval_users=0)
    assert not (tmp_path / "adapter").exists()


def test_a_custom_template_is_stored_beside_the_adapter(shared, shop, tmp_path) -> None:
    text = "{% for title in history %}{{ title }} {% endfor %}then {{ candidate }}?"
    (tmp_path / "words.j2").write_text(text)
    quick = QUICK | {"samples": 16, "eval_users": 0}
    out = quick_train(shared, [shop], tmp_path / "adapter", template=tmp_path / "words.j2", **quick)
    record = json.loads((out / "lorarec.json").read_text())
    assert record["template"] == record["options"]["template"] == "template.j2"
    out = out.rename(tmp_path / "moved")
    (tmp_path / "words.j2").unlink()
    with Ranker(shared, out) as ranker:
        assert ranker.builder.template.source == text
    other = quick_train(shared, [shop], tmp_path / "other", template="click", **quick)
    assert json.loads((other / "lorarec.json").read_text())["options"]["template"] == "click-v1"
    assert not (other / "template.j2").exists()


def interrupt(*_) -> None:
    raise KeyboardInterrupt


def test_another_text_of_the_template_is_another_run(shared, shop, tmp_path, monkeypatch) -> None:
    template = tmp_path / "words.j2"
    template.write_text("{{ history | join(', ') }} then {{ candidate }}?")
    options = {"template": template, "samples": 32, "eval_steps": 1}
    monkeypatch.setattr("lorarec.training.run.write_adapter", interrupt)
    with pytest.raises(KeyboardInterrupt):
        quick_train(shared, [shop], tmp_path / "adapter", **options)
    template.write_text("{{ history | join('; ') }} then {{ candidate }}?")
    with pytest.raises(LorarecError, match="template_fingerprint was"):
        quick_train(shared, [shop], tmp_path / "adapter", resume=True, **options)
