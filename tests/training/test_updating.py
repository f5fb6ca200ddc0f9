"""An adapter that goes on from its last weights: the proximal term, the new cases, and what is refused."""

import json
from dataclasses import replace

import polars as pl
import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from lorarec.data import leave_one_out, mark_new_cases, split_new_interactions
from lorarec.errors import LorarecError
from lorarec.lora import mix, read_adapter
from lorarec.training import AdapterUpdateConfig, ProximalTerm, TrainingConfig, recorded_config, train, update_adapter
from lorarec.training.cases import TrainingCases
from lorarec.training.micro_batches import MicroBatches
from lorarec.training.run import warmup_steps
from lorarec.training.scoring_model import adapted
from tests.factories import hot_backbone, hot_log

QUICK = {"batch_size": 16, "negatives": 4, "r": 4, "epochs": 1, "learning_rate": 1e-2, "eval_users": 0}


@pytest.fixture(scope="module")
def shared():
    """A backbone for all tests here: training does not change it."""
    return hot_backbone()


@pytest.fixture(scope="module")
def first(shared, tmp_path_factory):
    """An adapter of the shop."""
    return train(shared, [hot_log()], tmp_path_factory.mktemp("first") / "adapter", TrainingConfig(**QUICK, seed=7))


@pytest.fixture(scope="module")
def grown():
    """The shop after an update: each user has bought the first three things again, one a moment."""
    shop, _ = hot_log()
    again = shop.interactions.group_by("user_id", maintain_order=True).head(3)
    end = shop.interactions["timestamp"].max()
    again = again.with_columns(pl.int_range(pl.len()).alias("timestamp") + end + 1)
    larger = shop.append(again)
    return larger, split_new_interactions(larger, negatives=9)


def test_half_the_squared_distance_and_its_gradient() -> None:
    weights = [torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor([[3.0]]))]
    term = ProximalTerm(weights)
    assert term().item() == 0
    with torch.no_grad():
        weights[0] += torch.tensor([0.5, -1.0])
        weights[1] += 2
    assert term().item() == pytest.approx((0.25 + 1 + 4) / 2)
    term().backward()
    assert weights[0].grad.tolist() == [0.5, -1.0]
    assert weights[1].grad.tolist() == [[2.0]]


@pytest.mark.parametrize("proximal", [0.0, 0.7])
def test_training_is_the_loop_written_from_the_formula(shared, shop, first, tmp_path, proximal) -> None:
    config = TrainingConfig(**QUICK | {"lora_dropout": 0.0, "token_budget": 600, "proximal": proximal, "epochs": 2})
    trained = train(shared, [shop], tmp_path / "adapter", config, start_from=first)

    config = replace(config, template=recorded_config(first).template)
    builder = shared.prompt_builder(config)
    cases = TrainingCases([shop], config)
    batches = MicroBatches(cases, builder, config)
    assert batches.parts > 1
    with adapted(shared, builder, config, first) as model:
        weights = [each for each in model.parameters() if each.requires_grad]
        last = [each.detach().clone() for each in weights]
        optimizer = torch.optim.AdamW(weights, config.learning_rate, weight_decay=0.0)
        warmup = warmup_steps(config.warmup_ratio, batches.steps)
        schedule = get_cosine_schedule_with_warmup(optimizer, warmup, batches.steps)
        model.train()
        for step in range(batches.steps):
            examples = batches.examples_of_step(step)
            loss = torch.tensor(0.0)
            for example, target in examples:
                loss = loss - model([example])[0].log_softmax(0)[target] / len(examples)
            for weight, start in zip(weights, last, strict=True):
                loss = loss + proximal / 2 * ((weight - start) ** 2).sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        moved = 0.0
        for name, layer in model.base_model.model.named_modules():
            if name in trained.tensors:
                a, b = trained.tensors[name]
                torch.testing.assert_close(layer.lora_A["default"].weight, a, atol=2e-5, rtol=1e-4)
                torch.testing.assert_close(layer.lora_B["default"].weight, b, atol=2e-5, rtol=1e-4)
                moved += (first.tensors[name][0] - a).abs().sum().item()
        assert moved > 0


def test_a_larger_weight_keeps_the_adapter_nearer(shared, grown, first, tmp_path) -> None:
    shop = hot_log()
    distances = []
    for weight in (0.0, 1.0, 100.0):
        config = AdapterUpdateConfig(proximal=weight)
        after = update_adapter(shared, first, grown, shop, tmp_path / f"{weight}", config)
        pairs = zip(first.tensors.values(), after.tensors.values(), strict=True)
        distances.append(sum((x - y).pow(2).sum().item() for one, two in pairs for x, y in zip(one, two, strict=True)))
    assert distances[0] > distances[1] > distances[2] > 0


def test_only_new_targets_are_learned_and_recorded(shared, grown, first, tmp_path) -> None:
    (before, previous), (after, split) = hot_log(), grown
    marked = mark_new_cases(split, previous)
    cases = TrainingCases([(after, marked)], TrainingConfig(**QUICK))
    (sampler,) = cases.sources
    flat = marked.train["is_new"].explode().to_numpy()
    assert set(sampler.positions) == {at for at in flat.nonzero()[0] if at not in set(sampler.starts)}
    assert 0 < len(cases) < len(TrainingCases([(after, split)], TrainingConfig(**QUICK)))

    adapter = update_adapter(shared, first, grown, (before, previous), tmp_path / "after")
    record = json.loads((tmp_path / "after" / "lorarec.json").read_text())
    assert record["datasets"] == [
        {
            "name": "shop",
            "fingerprint": after.fingerprint,
            "split": split.fingerprint,
            "new_since": previous.fingerprint,
        }
    ]
    assert record["start_from"]["fingerprint"] == first.fingerprint
    assert record["training"]["cases_per_epoch"] == len(cases)
    changed = {"proximal": AdapterUpdateConfig().proximal}
    assert record["options"] == json.loads((first.folder / "lorarec.json").read_text())["options"] | changed
    assert recorded_config(adapter) == replace(recorded_config(first), **changed)


def test_a_second_update_goes_on_from_the_first(shared, grown, first, tmp_path) -> None:
    after, split = grown
    config = AdapterUpdateConfig(samples=16, learning_rate=1e-3, proximal=0)
    second = update_adapter(shared, first, grown, hot_log(), tmp_path / "second", config)
    assert recorded_config(second).learning_rate == 1e-3
    end = after.interactions["timestamp"].max()
    larger = after.append(after.interactions.head(40).with_columns(pl.int_range(pl.len()).alias("timestamp") + end + 1))
    pair = larger, split_new_interactions(larger, negatives=9)
    third = update_adapter(shared, second, pair, grown, tmp_path / "third", config)
    assert third.record.datasets[0]["new_since"] == split.fingerprint
    assert {each["fingerprint"] for each in third.record.all_datasets} == {
        larger.fingerprint,
        after.fingerprint,
        hot_log()[0].fingerprint,
    }


def test_what_cannot_be_continued_is_refused(shared, grown, first, tmp_path) -> None:
    shop, split = hot_log()
    out = tmp_path / "out"
    with pytest.raises(LorarecError, match=r"was trained on shop \(\w+\), not on store"):
        update_adapter(shared, first, grown, hot_log("store"), out)
    other = leave_one_out(shop, new_items=0, negatives=9)
    with pytest.raises(LorarecError, match="was trained on another split of shop"):
        update_adapter(shared, first, grown, (shop, other), out)
    mix(shared, [first, first], tmp_path / "mixed", method="fixed", weights=[0.5, 0.5])
    with pytest.raises(LorarecError, match="is a mixture: update its parts"):
        update_adapter(shared, tmp_path / "mixed", grown, (shop, split), out)
    bare = read_adapter(first.folder)
    (tmp_path / "bare").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "bare" / name).write_bytes((bare.folder / name).read_bytes())
    with pytest.raises(LorarecError, match="bare has no record of its training"):
        update_adapter(shared, tmp_path / "bare", grown, (shop, split), out)
    marked = mark_new_cases(split, split)
    with pytest.raises(LorarecError, match="shop has no new training cases"):
        train(shared, [(shop, marked)], out, TrainingConfig(**QUICK))
    with pytest.raises(LorarecError, match="option proximal keeps an adapter near the one that it starts from"):
        train(shared, [(shop, split)], out, TrainingConfig(**QUICK, proximal=1.0))
    for wrong in ({"proximal": -1.0}, {"samples": 0}, {"learning_rate": 0.0}):
        with pytest.raises(LorarecError, match=f"option {next(iter(wrong))} must"):
            AdapterUpdateConfig(**wrong)
    assert not out.exists()
