"""Checks of adapter_config.json: every setting of PEFT, types, patterns, and ranks that the tensors have."""

import dataclasses
import json
from pathlib import Path

import pytest
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from lorarec.errors import LorarecError
from lorarec.lora import peft_config, read_adapter
from lorarec.lora.peft_config import PLAIN, layer_ranks_and_scales

#: A value that switches each setting on which is off in a plain LoRA.
SWITCHED_ON = {
    "modules_to_save": ["lm_head"],
    "megatron_config": {"hidden_size": 8},
    "trainable_token_indices": [1, 2],
    "use_dora": True,
    "velora_config": {"num_groups": 2},
    "alora_invocation_tokens": [5],
    "use_qalora": True,
    "monteclora_config": {"num_samples": 2},
    "layer_replication": [[0, 1], [0, 2]],
    "lora_bias": True,
    "target_parameters": ["mlp.experts.gate_up_proj"],
    "use_bdlora": {"nblocks": 2},
    "arrow_config": {"top_k": 3},
    "kasa_config": {"beta": 1e-4},
}


@pytest.fixture
def folder(make_adapter) -> Path:
    return make_adapter("qwen2", 1)


def configure(folder: Path, **settings) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return path


def test_every_setting_of_peft_is_known() -> None:
    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    assert fields - PLAIN == set(SWITCHED_ON)


@pytest.mark.parametrize("setting", [*SWITCHED_ON, "a_variant_of_tomorrow", "use_" + "x" * 1000])
def test_settings_that_are_switched_on(setting: str, folder: Path) -> None:
    for off in (None, False, [], {}, ""):
        configure(folder, **{setting: off})
        read_adapter(folder)
    configure(folder, **{setting: SWITCHED_ON.get(setting, True)})
    with pytest.raises(LorarecError, match=f"uses {setting[:40]}.*plain LoRA") as error:
        read_adapter(folder)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "soon", 3, {}])
def test_initialisations_that_may_change_the_backbone(start: object, folder: Path) -> None:
    configure(folder, init_lora_weights=start)
    with pytest.raises(LorarecError, match="changes the backbone"):
        read_adapter(folder)


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal", "mica"])
def test_initialisations_that_do_not(start: object, folder: Path) -> None:
    configure(folder, init_lora_weights=start, eva_config={"rho": 2.0}, corda_config={"cache_file": None})
    assert read_adapter(folder).scales


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("lora_alpha", value) for value in (None, "16", True, [16], {}, 0, -1, float("nan"), float("inf"), 10**400)),
        *(("r", value) for value in (None, "3", True, 3.0, [3], 0, -3, float("nan"), 10**400)),
        *(("use_rslora", value) for value in ("yes", 1, [True])),
        *(("rank_pattern", value) for value in ([3], "q_proj", {"q_proj": "3"}, {"q_proj": 0}, {"q_proj": None})),
        *(("alpha_pattern", value) for value in ([3], 3, {"q_proj": None}, {"q_proj": True}, {"q_proj": -2})),
        *(("target_modules", value) for value in (3, [3], {"q_proj": 1})),
        *(("layers_to_transform", value) for value in ("1", ["1"], [None], 1.5)),
        *(("base_model_name_or_path", value) for value in (3, ["tiny"])),
        ("revision", 7),
        ("fan_in_fan_out", "no"),
    ],
)
def test_values_of_the_wrong_kind(setting: str, value: object, folder: Path) -> None:
    configure(folder, **{setting: value})
    with pytest.raises(LorarecError, match=rf"adapter_config\.json: {setting} must be .*, got") as error:
        read_adapter(folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_ranks_that_disagree_with_the_tensors(folder: Path, make_adapter) -> None:
    for r in (1, 2, 4, 8):
        configure(folder, r=r)
        with pytest.raises(LorarecError, match=f"has rank 3 in .*safetensors, but r is {r} in adapter_config"):
            read_adapter(folder)
    configure(folder, r=3, rank_pattern={r"layers\.1\.mlp\.down_proj": 5})
    with pytest.raises(LorarecError, match=r"layers\.1\.mlp\.down_proj has rank 3 .* r is 5"):
        read_adapter(folder)
    patterned = make_adapter("qwen2", 2, rank_pattern={"q_proj": 5})
    configure(patterned, rank_pattern={})
    with pytest.raises(LorarecError, match="q_proj has rank 5"):
        read_adapter(patterned)


def test_an_empty_matrix(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    for reshape in (lambda tensor: tensor[:0], lambda tensor: tensor[None], lambda tensor: tensor.flatten()):
        state = load_file(path)
        first = next(iter(state))
        save_file(state | {first: reshape(state[first]).contiguous()}, path)
        with pytest.raises(LorarecError, match="is no matrix"):
            read_adapter(folder)
        save_file(state, path)


@pytest.mark.parametrize("kind", ["int8", "bool", "float8_e4m3fn", "int64", "complex64"])
def test_tensors_that_are_no_floats(kind: str, folder: Path) -> None:
    import torch

    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    save_file({name: tensor.to(getattr(torch, kind)) for name, tensor in state.items()}, path)
    with pytest.raises(LorarecError, match="save it in float32"):
        read_adapter(folder)


def test_the_first_pattern_that_matches_the_end_of_a_name_decides() -> None:
    config = {
        "r": 8,
        "lora_alpha": 16,
        "rank_pattern": {r"layers\.0\.(q|k)_proj": 2, "q_proj": 4},
        "alpha_pattern": {"^model.layers.1.*": 3},
    }
    names = [f"model.layers.{layer}.{name}_proj" for layer in (0, 1) for name in "qkv"]
    found = layer_ranks_and_scales(Path("adapter_config.json"), config, names)
    assert [found[name] for name in names] == [(2, 8), (2, 8), (8, 2), (4, 3 / 4), (8, 3 / 8), (8, 3 / 8)]


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a{100000}){100000}", "a{9}", "(?R)", r"(a)\1", "(?<=a+)b", "(?P<n>a)(?P=n)", "(?i)q_proj", "q proj\n"),
        *("a" * 501, "(" * 400, "[a", "*", "(?=a)", ""),
    ],
)
def test_patterns_of_other_kinds(pattern: str, folder: Path) -> None:
    configure(folder, alpha_pattern={pattern: 3})
    with pytest.raises(LorarecError, match=r"adapter_config\.json: alpha_pattern has the key") as error:
        read_adapter(folder)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "pattern", ["(.|.|..)+(Z|Y)", "(.|.|..)+[ZY]", "((.|..)+)+[XY]", "(?:(.|..)*)+[XY]", "(.|.)+[XY]"]
)
def test_patterns_that_backtrack_forever(pattern: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft_config, "PATTERN_SECONDS", 0.1)
    configure(folder, rank_pattern={pattern: 5})
    with pytest.raises(LorarecError, match=r"take more than 0\.1 s to match"):
        read_adapter(folder)


def test_many_patterns_that_take_long_to_compile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft_config, "PATTERN_SECONDS", 0.1)
    configure(folder, rank_pattern={"a|" * 240 + str(number): 5 for number in range(400)})
    with pytest.raises(LorarecError, match=r"take more than 0\.1 s to match"):
        read_adapter(folder)
