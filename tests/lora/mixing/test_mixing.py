import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from lorarec.errors import LorarecError
from lorarec.lora import (
    AdapterBank,
    MixingConfig,
    MixingExamples,
    MixingPrompts,
    grid_search,
    inject,
    merge,
    mix,
    read_adapter,
)
from lorarec.lora.prompt_record import prompt_config
from lorarec.lora.pruning import prune_and_merge
from lorarec.scoring import score_batch

PICTURES = {
    ("fixed", "model"): {"weights.png"},
    ("grid", "model"): {"weights.png", "ndcg.png"},
    ("entropy", "model"): {"weights.png", "entropy.png", "entropy_by_lambda.png"},
    ("entropy", "layer"): {"weights.png", "entropy.png"},
    ("agreement", "model"): {"weights.png", "divergence.png", "divergence_by_lambda.png"},
    ("agreement", "layer"): {"weights.png", "divergence.png"},
}


@pytest.fixture
def arguments(builder, make_prompts):
    prompts = make_prompts(builder)
    return {
        "fixed": {"weights": [0.3, 0.7]},
        "grid": {"examples": MixingExamples(builder, prompts, [i % len(p.branches) for i, p in enumerate(prompts)])},
        "entropy": {"examples": MixingExamples(builder, prompts)},
        "agreement": {"examples": MixingExamples(builder, prompts)},
    }


@pytest.mark.parametrize(("method", "scope"), PICTURES)
@pytest.mark.parametrize("combine", ["factors", "deltas"])
def test_folder_reloaded_by_plain_peft_gives_the_logits_in_memory(
    method, scope, combine, tiny_backbone, adapters, arguments, tmp_path
):
    model, ids = tiny_backbone.model, torch.arange(1, 25).view(2, 12)
    out = tmp_path / "mixed"
    result = mix(tiny_backbone, adapters, out=out, method=method, scope=scope, combine=combine, **arguments[method])
    with inject(model, AdapterBank.load(adapters), combine) as mixed, torch.no_grad():
        listed = result.weights.items() if scope == "layer" else [(name, result.weights) for name in mixed.layers]
        mixed.set_weights({name: torch.tensor(weights) for name, weights in listed})
        expected = model(input_ids=ids).logits
    with_peft = PeftModel.from_pretrained(model, out)
    with torch.no_grad():
        torch.testing.assert_close(with_peft(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-5)
    with_peft.unload()
    assert with_peft.peft_config["default"].r == (2 if combine == "factors" else 4)
    files = {path.name for path in out.iterdir()}
    wanted = {"adapter_config.json", "adapter_model.safetensors", "lorarec.json", "mix_trace.json"}
    assert files - {"README.md"} == wanted | PICTURES[method, scope]
    assert all((out / name).stat().st_size > 3000 for name in PICTURES[method, scope])


def test_records(tiny_backbone, adapters, dataset, split, tmp_path):
    out = tmp_path / "mixed"
    result = mix(tiny_backbone, adapters, out=out, dataset=dataset, split=split, prompts=6)
    meta = json.loads((out / "lorarec.json").read_text())
    assert meta["backbone"] == {"id": "tiny-qwen2", "fingerprint": "qwen2"}
    assert [each["fingerprint"] for each in meta["adapters"]] == [
        read_adapter(folder).fingerprint for folder in adapters
    ]
    assert meta["readout"] == "verdict"
    assert meta["options"] == {
        "template": "verdict-v1",
        "max_tokens": 1024,
        "max_title_tokens": 32,
        "max_history": 3,
        "evidence": False,
    }
    assert meta["mix"]["weights"] == result.weights
    assert meta["mix"]["setting"] == "warm"
    assert meta["mix"]["dataset_fingerprint"] == dataset.fingerprint
    assert meta["mix"]["prompts"] == 6
    assert {"method", "combine", "scope", "objective", "prompts"} <= meta["mix"].keys()
    assert "peft" in meta["versions"]
    trace = json.loads((out / "mix_trace.json").read_text())
    assert min(trace["steps"], key=lambda step: step["entropy"])["weights"] == pytest.approx(result.weights)
    mix(
        tiny_backbone,
        [out, *adapters],
        out=tmp_path / "again",
        combine="deltas",
        method="fixed",
        weights=[0.2, 0.3, 0.5],
    )


@pytest.mark.parametrize("method", ["entropy", "agreement"])
def test_calibration_is_recorded(method, tiny_backbone, adapters, dataset, split, tmp_path):
    config = MixingConfig(method=method, prompts=5, cases=7, calibrate=True)
    result = mix(tiny_backbone, adapters, tmp_path / "mixed", config, dataset=dataset, split=split)
    recorded = json.loads((tmp_path / "mixed" / "lorarec.json").read_text())["mix"]
    assert (recorded["method"], recorded["prompts"], recorded["cases"]) == (method, 5, 7)
    assert len(recorded["temperatures"]) == 2
    draw = MixingPrompts(tiny_backbone, adapters)
    unlabelled = MixingExamples(draw.builder, draw.unlabelled(dataset, split, "warm", 5, config.seed))
    labelled = MixingExamples(draw.builder, *draw.validation(dataset, split, 7, config.seed))
    given = mix(tiny_backbone, adapters, tmp_path / "given", config, examples=unlabelled, labelled=labelled)
    assert given.weights == result.weights


def test_calibration_changes_what_entropy_sees(tiny_backbone, adapters, dataset, split, tmp_path):
    found = {}
    for calibrate in (False, True):
        out = tmp_path / str(calibrate)
        mixed = mix(tiny_backbone, adapters, out, dataset=dataset, split=split, prompts=6, calibrate=calibrate)
        found[calibrate] = {tuple(step.weights): step.metrics["entropy"] for step in mixed.trace.steps}
    assert found[False][1, 0] != pytest.approx(found[True][1, 0], rel=1e-3)


def test_keyword_arguments_replace_fields_of_the_options(tiny_backbone, adapters, tmp_path):
    config = MixingConfig(method="fixed", combine="deltas", rank=3)
    mix(tiny_backbone, adapters, tmp_path / "mixed", config, weights=[0.5, 0.5], rank=1)
    assert set(read_adapter(tmp_path / "mixed").ranks.values()) == {1}
    recorded = json.loads((tmp_path / "mixed" / "lorarec.json").read_text())["mix"]
    assert (recorded["combine"], recorded["rank"]) == ("deltas", 1)


def test_grid_takes_the_best_point_and_breaks_ties_toward_uniform(
    tiny_backbone, adapters, builder, arguments, tmp_path
):
    result = mix(tiny_backbone, adapters, out=tmp_path / "mixed", method="grid", **arguments["grid"])
    steps = result.trace.steps
    best = max(step.metrics["ndcg@10"] for step in steps)
    tied = [step.weights for step in steps if step.metrics["ndcg@10"] == best]
    assert abs(result.weights[0] - 0.5) == pytest.approx(min(abs(weights[0] - 0.5) for weights in tied))
    certain = [example for example in arguments["grid"]["examples"].prompts if len(example.branches) == 4][:1]
    one = [type(certain[0])(certain[0].prompt, certain[0].branches[:1])]
    tie = mix(tiny_backbone, adapters, out=tmp_path / "tie", method="grid", examples=MixingExamples(builder, one, [0]))
    assert tie.weights == pytest.approx([0.5, 0.5])


def test_rounding_does_not_break_ties_of_the_grid(monkeypatch, builder):
    """Means of the same values in another order differ by rounding: 0.1 + 0.2 > 0.3."""
    ndcg = [0.1 + 0.2, *[0.3] * 10]
    monkeypatch.setattr(grid_search, "ndcg_at_weights", lambda *_: [{"ndcg@10": value} for value in ndcg])
    weights, trace = grid_search.grid_weights(None, 2, MixingExamples(builder, [], []), None)
    assert weights.tolist() == [0.5, 0.5] == trace.steps[trace.counts["chosen"]].weights


def test_grid_metrics_are_those_of_the_merged_mixture(tiny_backbone, adapters, builder, arguments, tmp_path):
    given = arguments["grid"]["examples"]
    result = mix(tiny_backbone, adapters, out=tmp_path / "mixed", method="grid", **arguments["grid"])
    merged = AdapterBank.load(adapters).to_adapter(torch.tensor(result.weights), "factors")
    merged_model = merge(tiny_backbone.model, merged)
    with torch.no_grad():
        scores = score_batch(tiny_backbone.model, given.prompts, builder)
    merged_model.unmerge()
    right = [int(each.argmax() == target) for each, target in zip(scores, given.targets, strict=True)]
    (chosen,) = [step for step in result.trace.steps if step.weights == pytest.approx(result.weights)]
    assert sum(right) / len(right) == pytest.approx(chosen.metrics["ndcg@1"])


def test_three_adapters_and_truncation_to_a_rank(tiny_backbone, adapters, make_adapter, builder, arguments, tmp_path):
    folders = [*adapters, make_adapter(tiny_backbone, 3, r=4)]
    for method in ("grid", "entropy", "agreement"):
        out = tmp_path / method
        result = mix(tiny_backbone, folders, out=out, method=method, combine="deltas", rank=3, **arguments[method])
        assert sum(result.weights) == pytest.approx(1)
        assert set(read_adapter(out).ranks.values()) == {3}


BAD = [
    ({"weights": [0.5, 0.6]}, "sum to 1.1"),
    ({"weights": [-0.5, 1.5]}, "negative"),
    ({"weights": [float("nan"), 1]}, "finite"),
    ({"weights": [1.0]}, "need 2 weights, one for each adapter, got 1"),
    ({}, "method=fixed needs option weights"),
    ({"weights": [0.5, 0.5], "scope": "layer"}, "scope=layer needs method=entropy"),
    ({"weights": [0.5, 0.5], "combine": "linear"}, "option combine must be factors or deltas or magnitude_prune or"),
    ({"weights": [0.5, 0.5], "combine": "ties", "density": 0}, "option density must be above 0 and at most 1, got 0"),
    ({"method": "grid", "combine": "ties"}, "combine=ties is defined for given weights only"),
    ({"method": "grid", "combine": "deltas", "task_arithmetic": True}, "task_arithmetic=True needs method=fixed"),
    ({"weights": [1, -1], "task_arithmetic": True}, "so that a negative weight does not subtract"),
    ({"weights": [1, float("inf")], "combine": "deltas", "task_arithmetic": True}, "finite"),
    ({"weights": [0.5, 0.5], "rank": 0}, "option rank must be at least 1"),
    ({"weights": [0.5, 0.5], "scope": "block"}, "option scope must be model or layer, got 'block'"),
    ({"method": "guess"}, "option method must be fixed or grid or entropy or agreement, got 'guess'"),
    ({"weights": [0.5, 0.5], "scopes": "layer"}, "unknown option 'scopes': choose from calibrate, cases"),
    ({"weights": [0.5, 0.5], "calibrate": True}, "calibrate=True needs method=entropy or agreement; method=fixed"),
    ({"method": "grid", "calibrate": True}, "method=grid does not depend on temperatures"),
    ({"method": "agreement", "objective": "tokens"}, "objective=tokens is the entropy of an answer's first tokens"),
    ({"method": "entropy", "objective": "tokens", "calibrate": True}, "use it with method=entropy and without calibr"),
    ({"method": "entropy", "prompts": 0}, "option prompts must be at least 1, got 0"),
    ({"method": "agreement"}, "method=agreement needs prompts: give either the dataset"),
    ({"method": "grid"}, "method=grid needs prompts: give either the dataset"),
    ({"method": "entropy"}, "method=entropy needs prompts: give either the dataset"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_arguments_write_nothing(options, message, tiny_backbone, adapters, tmp_path):
    with pytest.raises(LorarecError, match=message):
        mix(tiny_backbone, adapters, out=tmp_path / "mixed", **{"method": "fixed"} | options)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter1", "adapter2"}


@pytest.mark.parametrize(("calibrate", "given"), [(True, False), (False, True)])
def test_labelled_prompts_are_for_calibration(calibrate, given, tiny_backbone, adapters, arguments, tmp_path):
    options = arguments["entropy"] | {"labelled": arguments["grid"]["examples"] if given else None}
    with pytest.raises(LorarecError, match="give labelled prompts with examples and calibrate=True, and only then"):
        mix(tiny_backbone, adapters, tmp_path / "mixed", calibrate=calibrate, **options)


def test_task_arithmetic_subtracts_an_adapter(tiny_backbone, adapters, tmp_path):
    options = {"method": "fixed", "combine": "deltas", "task_arithmetic": True}
    mixed = mix(tiny_backbone, adapters, tmp_path / "mixed", weights=[1.5, -0.5], **options)
    assert mixed.weights == mixed.record.mix.weights == [1.5, -0.5]
    first, second = map(read_adapter, adapters)
    for name, (a, b) in mixed.tensors.items():
        expected = [
            adapter.scales[name] * adapter.tensors[name][1] @ adapter.tensors[name][0] for adapter in (first, second)
        ]
        torch.testing.assert_close(
            mixed.scales[name] * b @ a, 1.5 * expected[0] - 0.5 * expected[1], rtol=1e-4, atol=1e-5
        )


def test_a_rule_that_prunes_is_recorded(tiny_backbone, adapters, tmp_path):
    options = {"method": "fixed", "weights": [0.5, 0.5], "combine": "dare_ties", "density": 0.3, "seed": 5}
    mixed = mix(tiny_backbone, adapters, tmp_path / "mixed", **options)
    details = mixed.record.mix.details
    assert (details["combine"], details["density"], details["seed"]) == ("dare_ties", 0.3, 5)
    assert set(mixed.ranks.values()) == {2}
    expected = prune_and_merge(AdapterBank.load(adapters), torch.tensor([0.5, 0.5]), "dare_ties", 0.3, seed=5)
    assert all(torch.equal(a, expected.tensors[name][0]) for name, (a, _) in mixed.tensors.items())


def test_one_adapter(tiny_backbone, adapters, tmp_path):
    with pytest.raises(LorarecError, match="two or more adapters, got 1"):
        mix(tiny_backbone, adapters[:1], out=tmp_path / "mixed", method="fixed", weights=[1.0])


def test_unequal_ranks_with_factors(tiny_backbone, adapters, make_adapter, tmp_path):
    folders = [*adapters, make_adapter(tiny_backbone, 3, r=4)]
    with pytest.raises(LorarecError, match="needs adapters of equal rank"):
        mix(tiny_backbone, folders, out=tmp_path / "mixed", method="fixed", weights=[0.5, 0.25, 0.25])


def test_adapter_of_another_backbone(tiny_backbone, adapters, tmp_path):
    tiny_backbone.fingerprint = "another"
    with pytest.raises(LorarecError, match="belongs to backbone tiny-qwen2"):
        mix(tiny_backbone, adapters, out=tmp_path / "mixed", method="fixed", weights=[0.5, 0.5])


def test_folder_that_exists(tiny_backbone, adapters, tmp_path):
    out = tmp_path / "mixed"
    options = {"out": out, "method": "fixed", "weights": [0.5, 0.5]}
    mix(tiny_backbone, adapters, **options)
    with pytest.raises(LorarecError, match="mixed exists already"):
        mix(tiny_backbone, adapters, **options)
    mix(tiny_backbone, adapters, overwrite=True, **options | {"weights": [0.1, 0.9]})
    assert json.loads((out / "mix_trace.json").read_text())["weights"] == [0.1, 0.9]


def test_model_is_unchanged(tiny_backbone, adapters, arguments, tmp_path):
    model = tiny_backbone.model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bad = replace(arguments["grid"]["examples"], targets=[0])
    with pytest.raises(LorarecError, match="but 1 targets"):
        mix(tiny_backbone, adapters, out=tmp_path / "bad", method="grid", examples=bad)
    mix(tiny_backbone, adapters, out=tmp_path / "mixed", scope="layer", **arguments["entropy"])
    assert model.training
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_an_adapter_that_changes_nothing_is_reported(tiny_backbone, adapters, arguments, tmp_path, caplog):
    mix(tiny_backbone, adapters, out=tmp_path / "mixed", **arguments["fixed"], method="fixed")
    assert not caplog.records
    path = adapters[1] / "adapter_model.safetensors"
    save_file({name: tensor * ("lora_A" in name) for name, tensor in load_file(path).items()}, path)
    mix(tiny_backbone, adapters, out=tmp_path / "again", **arguments["fixed"], method="fixed")
    assert [record.getMessage() for record in caplog.records] == [
        f"adapter {adapters[1]} changes nothing, since B is zero in all layers: leave it out"
    ]


def test_a_custom_template_is_copied_to_the_mixture(tiny_backbone, adapters, arguments, tmp_path):
    text = "{{ history | join(', ') }} then {{ candidate }}?"
    for folder, name in zip(adapters, ("here.j2", "there.j2"), strict=True):
        meta = json.loads((folder / "lorarec.json").read_text())
        meta["options"]["template"] = f"/home/someone/{name}"
        (folder / name).write_text(text)
        (folder / "lorarec.json").write_text(json.dumps(meta))
    out = mix(tiny_backbone, adapters, out=tmp_path / "mixed", **arguments["fixed"], method="fixed").folder
    assert json.loads((out / "lorarec.json").read_text())["options"]["template"] == "template.j2"
    assert prompt_config(read_adapter(out)).template.text == text
    again = mix(tiny_backbone, [out, adapters[0]], out=tmp_path / "again", **arguments["fixed"], method="fixed").folder
    assert prompt_config(read_adapter(again)).template.text == text


def test_a_mixture_names_layers_without_patterns_of_others(tiny_backbone, adapters, arguments, tmp_path):
    for folder in adapters:
        config = json.loads((folder / "adapter_config.json").read_text())
        settings = {"target_modules": r".*(a|a)+_proj|.*", "exclude_modules": "(x+)+y"}
        (folder / "adapter_config.json").write_text(json.dumps(config | settings))
    out = mix(tiny_backbone, adapters, out=tmp_path / "mixed", **arguments["fixed"], method="fixed").folder
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(read_adapter(adapters[0]).tensors)
    assert config["exclude_modules"] is None


@pytest.mark.parametrize("method", ["fixed", "grid", "entropy", "agreement"])
def test_adapters_with_different_prompts_are_refused(tiny_backbone, adapters, arguments, tmp_path, method):
    for folder, version in zip(adapters, (1, 2), strict=True):
        meta = json.loads((folder / "lorarec.json").read_text())
        meta["options"] |= {"template": f"verdict-v{version}", "evidence": True}
        (folder / "lorarec.json").write_text(json.dumps(meta | {"format_version": 2}))
    with pytest.raises(LorarecError, match=r"different values of template \(verdict-v1, verdict-v2\)"):
        mix(tiny_backbone, adapters, out=tmp_path / "mixed", **arguments[method], method=method)
    assert not (tmp_path / "mixed").exists()
