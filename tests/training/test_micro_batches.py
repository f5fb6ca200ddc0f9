import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorarec.errors import LorarecError
from lorarec.prompts import PromptBuilder
from lorarec.scoring import score_batch
from lorarec.training.cases import TrainingCases
from lorarec.training.config import TrainingConfig
from lorarec.training.losses import listwise, next_token
from lorarec.training.micro_batches import MicroBatches
from tests.factories import hot_backbone


def build(backbone, shop, processes=1, **options):
    chosen = TrainingConfig(**{"batch_size": 16, "token_budget": 500, "negatives": 3} | options)
    builder = PromptBuilder(backbone.tokenizer, chosen.readout)
    return MicroBatches(TrainingCases([shop], chosen), builder, chosen, processes)


@settings(max_examples=15)
@given(batch=st.integers(1, 90), budget=st.integers(1, 20_000), processes=st.integers(1, 3))
def test_steps_hold_every_case_once(shop, batch, budget, processes) -> None:
    cases = len(build(hot_backbone(), shop).cases)
    if cases // -(-cases // batch) < processes:
        with pytest.raises(LorarecError):
            build(hot_backbone(), shop, processes, batch_size=batch)
        return
    batches = build(hot_backbone(), shop, processes, batch_size=batch, token_budget=budget)
    assert batches.parts % processes == 0
    assert len(batches) == 2 * batches.steps_per_epoch * batches.parts
    for epoch in range(2):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        sizes = [len(batches.examples_of_step(step)) for step in steps]
        assert sum(sizes) == len(batches.cases)
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch


def test_parts_of_a_step_are_its_cases_sorted_by_length(backbone, shop) -> None:
    batches = build(backbone, shop)
    assert batches.parts > 1
    parts = [batches[batches.parts + part] for part in range(batches.parts)]
    examples = [example for part in parts for example in part["examples"]]
    assert examples == [example for example, _ in batches.examples_of_step(1)]
    lengths = [example.length for example in examples]
    assert lengths == sorted(lengths)
    assert len({part["seed"] for part in parts}) == batches.parts


@settings(max_examples=15)
@given(
    limit=st.integers(1, 5_000),
    batch=st.integers(1, 90),
    processes=st.integers(1, 3),
    dropout=st.sampled_from([0, 0.1]),
)
def test_parts_fit_the_limit_or_are_single_cases(shop, limit, batch, processes, dropout) -> None:
    options = {"batch_size": batch, "token_budget": None, "lora_dropout": dropout}
    cases = len(build(hot_backbone(), shop).cases)
    if cases // -(-cases // batch) < processes:
        return
    batches = build(hot_backbone(), shop, processes, **options)
    before = batches.parts
    batches.fit(limit)
    assert batches.parts >= before
    assert batches.parts % processes == 0
    sizes = []
    for part in range(batches.parts):
        lengths = [example.length for example in batches[part]["examples"]]
        sizes.append(len(lengths) * max(lengths))
    assert max(sizes) == batches.longest
    step = len(batches.examples_of_step(0))
    unit = 1 if not dropout else 4
    assert batches.longest <= limit or batches.parts + unit * processes > step
    if batches.parts > before:  # no more parts than the limit needs
        fewer = build(hot_backbone(), shop, processes, **options)
        fewer.parts = batches.parts - batches._unit
        assert fewer.longest > limit


def test_a_micro_batch_is_a_function_of_its_index(backbone, shop) -> None:
    walked, by_index = build(backbone, shop), build(backbone, shop)
    everything = [walked[index] for index in range(len(walked))]
    assert by_index[len(by_index) - 1] == everything[-1]
    assert by_index[3] == everything[3]


@pytest.mark.parametrize("loss", ["listwise", "next-token"])
def test_micro_batches_add_up_to_the_mean_over_the_step(backbone, shop, loss) -> None:
    batches = build(backbone, shop, loss=loss, readout="likelihood", token_budget=700)
    assert batches.parts > 1

    def total(examples, targets):
        scores = score_batch(backbone.model, examples, batches.builder)
        return next_token(scores) if loss == "next-token" else listwise(scores, targets)

    with torch.no_grad():
        parts = [batches[part] for part in range(batches.parts)]
        mean = sum(total(part["examples"], part["targets"]) * part["scale"] for part in parts) / batches.parts
        examples, targets = zip(*batches.examples_of_step(0), strict=True)
        whole = len(examples) if loss == "listwise" else sum(len(each.branches[0]) for each in examples)
        assert torch.allclose(mean, total(examples, targets) / whole, rtol=1e-5)


def test_next_token_has_the_true_title_only(backbone, shop) -> None:
    batches = build(backbone, shop, loss="next-token", readout="likelihood")
    listed = build(backbone, shop, readout="likelihood")
    for (short, target), (full, true) in zip(batches.examples_of_step(0), listed.examples_of_step(0), strict=False):
        assert target == 0
        assert len(short.branches) == 1
        if short.prompt == full.prompt:
            assert short.branches == [full.branches[true]]


def test_too_many_processes(backbone, shop) -> None:
    with pytest.raises(LorarecError, match="4 processes cannot share a step of 3"):
        build(backbone, shop, processes=4, batch_size=3)
