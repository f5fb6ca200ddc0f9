import polars as pl
import pytest

from lorarec.data import Cooccurrence, leave_one_out
from lorarec.errors import LorarecError
from lorarec.io.artefacts import read_json, write_json
from lorarec.lora import MixingPrompts, mix
from lorarec.prompts import case_examples


def test_prompts_are_built_as_the_adapters_were_trained(tiny_backbone, make_adapter):
    folders = [make_adapter(tiny_backbone, seed, readout="likelihood") for seed in (1, 2)]
    made = MixingPrompts(tiny_backbone, folders)
    assert made.builder.readout == "likelihood"
    assert made.max_history == 3


def test_unlabelled_prompts_do_not_know_the_target(tiny_backbone, adapters, dataset, split):
    made = MixingPrompts(tiny_backbone, adapters)
    prompts = made.unlabelled(dataset, split, "warm", 5, seed=0)
    assert len(prompts) == 5
    assert all(len(prompt.branches) == 6 for prompt in prompts)
    cases = split.test["warm"].with_columns(target=pl.lit("nobody"))
    without = type(split)(split.train, split.valid, {"warm": cases}, split.info)
    assert made.unlabelled(dataset, without, "warm", 5, seed=0) == prompts
    assert made.unlabelled(dataset, split, "warm", 5, seed=1) != prompts
    assert len(made.unlabelled(dataset, split, "new-item", 10_000, seed=0)) == len(split.test["new-item"])


def test_validation_knows_it(tiny_backbone, adapters, dataset, split):
    made = MixingPrompts(tiny_backbone, adapters)
    examples, targets = made.validation(dataset, split, 10_000, seed=0)
    assert len(examples) == len(targets) == len(split.valid)
    target_titles = {
        tuple(made.builder.example([], [dataset.titles[item]]).branches[0]) for item in split.valid["target"]
    }
    found = {tuple(example.branches[target]) for example, target in zip(examples, targets, strict=True)}
    assert found == target_titles


def test_adapters_trained_on_other_prompts(tiny_backbone, adapters):
    path = adapters[1] / "lorarec.json"
    write_json(path, read_json(path) | {"readout": "likelihood"})
    with pytest.raises(LorarecError, match=r"different values of readout \(verdict, likelihood\)"):
        MixingPrompts(tiny_backbone, adapters)


def test_weights_are_chosen_on_the_prompts_that_the_mixture_has(tiny_backbone, adapters, dataset, split, tmp_path):
    """Of adapters that were trained on histories of other lengths, too."""
    path = adapters[0] / "lorarec.json"
    record = read_json(path)
    write_json(path, record | {"options": record["options"] | {"max_history": 1}})
    mix(tiny_backbone, adapters, tmp_path / "mixed", method="fixed", weights=[0.5, 0.5])
    of_mixture = MixingPrompts(tiny_backbone, [tmp_path / "mixed"])
    for order in (adapters, adapters[::-1]):
        made = MixingPrompts(tiny_backbone, order)
        assert made.config == of_mixture.config
        prompts = [each.unlabelled(dataset, split, "warm", 20, seed=0) for each in (made, of_mixture)]
        assert prompts[0] == prompts[1]


def test_setting_that_is_not_there(tiny_backbone, adapters, dataset):
    split = leave_one_out(dataset, new_items=0, negatives=5)
    with pytest.raises(LorarecError, match="no setting 'new-item': choose from warm"):
        MixingPrompts(tiny_backbone, adapters).unlabelled(dataset, split, "new-item", 5, seed=0)


def test_no_cases(tiny_backbone, adapters, dataset, split):
    empty = type(split)(split.train, split.valid.clear(), {"warm": split.test["warm"].clear()}, split.info)
    made = MixingPrompts(tiny_backbone, adapters)
    with pytest.raises(LorarecError, match="setting warm of dataset shop has no cases"):
        made.unlabelled(dataset, empty, "warm", 5, seed=0)
    with pytest.raises(LorarecError, match="no validation cases"):
        made.validation(dataset, empty, 5, seed=0)


def test_evidence_is_given_to_adapters_that_read_it(tiny_backbone, adapters, dataset, split):
    plain, _ = MixingPrompts(tiny_backbone, adapters).validation(dataset, split, 5, seed=0)
    path = adapters[0] / "lorarec.json"
    meta = read_json(path)
    write_json(path, meta | {"options": meta["options"] | {"evidence": True}})
    with pytest.raises(LorarecError, match=r"different values of evidence \(True, False\)"):
        MixingPrompts(tiny_backbone, adapters)
    made = MixingPrompts(tiny_backbone, adapters[:1])
    with_evidence, _ = made.validation(dataset, split, 5, seed=0)
    cases = split.valid.sample(5, shuffle=True, seed=0)
    assert with_evidence == case_examples(
        cases, dataset.titles, made.builder, made.max_history, Cooccurrence(split.train, dataset.titles)
    )
    assert with_evidence != plain
