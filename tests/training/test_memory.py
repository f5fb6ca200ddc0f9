"""The limit of a forward pass: what memory holds, and the same gradients whatever the limit."""

import json

import pytest
import torch

from lorarec.prompts import PromptBuilder
from lorarec.training import TrainingConfig, train
from lorarec.training.losses import listwise
from lorarec.training.memory import CPU_BYTES, activation_bytes, pass_limit
from lorarec.training.scoring_model import adapted

TITLES = ["red lamp", "hot chair", "new table", "cold plate"]


def gradients(model, examples) -> list[torch.Tensor]:
    torch.manual_seed(0)  # of the dropout masks
    model.zero_grad()
    listwise(model(examples), [0] * len(examples)).backward()
    return [weight.grad for weight in model.parameters() if weight.requires_grad]


def test_activations_are_those_that_a_longer_pass_keeps(backbone) -> None:
    """A loop over the graph of another pass finds about as many bytes per token."""
    with adapted(backbone, PromptBuilder(backbone.tokenizer), TrainingConfig(lora_dropout=0.0)) as model:
        found, training = activation_bytes(model), model.training
        assert model.training == training
        ids = torch.zeros(1, 200, dtype=torch.long)
        output = model.train().base_model.model.model(input_ids=ids, use_cache=False).last_hidden_state
        kept, nodes, seen = {}, [output.grad_fn], set()
        while nodes:
            node = nodes.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            nodes += [following for following, _ in node.next_functions]
            saved = [getattr(node, name, None) for name in dir(node) if name.startswith("_saved_")]
            saved += getattr(node, "saved_tensors", ())
            for tensor in saved:
                if isinstance(tensor, torch.Tensor):
                    kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        for weight in model.parameters():
            kept.pop(weight.untyped_storage().data_ptr(), None)
        assert found == pytest.approx(sum(kept.values()) / 200, rel=0.1)


def test_checkpointing_keeps_fewer_activations(backbone) -> None:
    builder = PromptBuilder(backbone.tokenizer)
    with adapted(backbone, builder, TrainingConfig()) as model:
        all_kept = activation_bytes(model)
    with adapted(backbone, builder, TrainingConfig(gradient_checkpointing=True)) as model:
        assert activation_bytes(model) < all_kept / 2


def test_limit_is_a_share_of_the_free_memory(backbone, monkeypatch) -> None:
    with adapted(backbone, PromptBuilder(backbone.tokenizer), TrainingConfig(lora_dropout=0.0)) as model:
        per_token = activation_bytes(model)
        for available, processes, expected in [(1e12, 1, CPU_BYTES), (4e8, 1, 1e8), (4e8, 4, 2.5e7), (0, 1, per_token)]:
            monkeypatch.setattr("lorarec.training.memory.available_memory", lambda available=available: available)
            monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
            assert pass_limit(model, "cpu") == int(expected / per_token)


def test_weights_that_are_still_to_be_moved_to_an_accelerator_count(backbone, monkeypatch) -> None:
    monkeypatch.setattr("lorarec.training.memory.free_memory", {"xpu": 10**9}.get)
    with adapted(backbone, PromptBuilder(backbone.tokenizer), TrainingConfig()) as model:
        weights = sum(weight.nbytes for weight in model.parameters())
        assert pass_limit(model, "xpu") == int((10**9 - weights) / 2 / activation_bytes(model))


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_recomputed_activations_give_the_same_gradients(backbone, readout, dropout) -> None:
    builder = PromptBuilder(backbone.tokenizer, readout)
    examples = [builder.example(TITLES[:2], TITLES), builder.example(TITLES[:1], TITLES)]
    config = TrainingConfig(readout=readout, lora_dropout=dropout)
    with adapted(backbone, builder, config) as model:
        model.train()
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        expected = [each.clone() for each in gradients(model, examples)]
        model.limit = 10
        found = gradients(model, examples)
        assert not backbone.model.is_gradient_checkpointing
    assert max(each.abs().max() for each in expected) > 1e-3
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_memory_decides_the_passes_and_not_the_weights(
    backbone, shop, tmp_path, monkeypatch, largest_difference, capsys
) -> None:
    """With little memory a step has more passes; without dropout, whose masks belong to passes, the result is equal."""
    options = {"batch_size": 16, "negatives": 4, "r": 4, "epochs": 1, "learning_rate": 1e-3, "lora_dropout": 0.0}
    config = TrainingConfig(**options, eval_users=0)
    folders = {}
    for name, tokens in [("much", 10**6), ("little", 1)]:
        monkeypatch.setattr("lorarec.training.run.pass_limit", lambda *_, tokens=tokens, **__: tokens)
        folders[name] = train(backbone, [shop], tmp_path / name, config, progress=True).folder
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Training: ") and "cases" in line]
    assert [line.partition(" cases, each in ")[2].split(" forward")[0] for line in lines] == ["1", "14"]
    passes = [json.loads((each / "lorarec.json").read_text())["training"] for each in folders.values()]
    assert [each["passes_per_step"] for each in passes] == [1, 14]  # steps have 14 or 15 cases
    assert largest_difference(*folders.values()) < 1e-5


def test_a_resumed_run_keeps_the_passes_of_its_beginning(backbone, shop, tmp_path, monkeypatch) -> None:
    """The memory at hand may be another when the run is resumed, and the dropout masks belong to the passes."""
    config = TrainingConfig(batch_size=16, negatives=4, r=4, epochs=2, eval_users=0, eval_steps=1)
    monkeypatch.setattr("lorarec.training.run.pass_limit", lambda *_, **__: 300)
    whole = train(backbone, [shop], tmp_path / "whole", config)
    passes = json.loads((whole.folder / "lorarec.json").read_text())["training"]["passes_per_step"]

    def interrupted(*_, **__) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lorarec.training.run.training_summary", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(backbone, [shop], tmp_path / "resumed", config)
    monkeypatch.setattr("lorarec.training.run.pass_limit", lambda *_, **__: 10**6)
    resumed = train(backbone, [shop], tmp_path / "resumed", config, resume=True)
    training = json.loads((resumed.folder / "lorarec.json").read_text())["training"]
    assert training["passes_per_step"] == passes > 4
    for name, (a, b) in whole.tensors.items():
        assert torch.equal(a, resumed.tensors[name][0])
        assert torch.equal(b, resumed.tensors[name][1])
