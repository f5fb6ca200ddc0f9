import json
import pickle

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from lorarec.errors import LorarecError
from lorarec.lora import AdapterRecord, merge, read_adapter, save_adapter

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out")


def test_folder_written_again_gives_the_same_logits_under_plain_peft(
    architecture, model, make_adapter, token_ids, logits_of, tmp_path
):
    folder = make_adapter(architecture, 1)
    with_peft = PeftModel.from_pretrained(model, folder)
    expected = logits_of(with_peft, token_ids)
    again = tmp_path / "again"
    again.mkdir()
    save_adapter(read_adapter(folder), again, base_model="tiny")
    assert torch.equal(logits_of(PeftModel.from_pretrained(with_peft.unload(), again), token_ids), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"rank_pattern": {"q_proj": 5}, "alpha_pattern": {"q_proj": 7}},
        {"use_rslora": True},
        {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1]},
    ],
)
def test_patterns_and_scalings_survive(options, qwen2, make_adapter, token_ids, logits_of, tmp_path):
    folder = make_adapter("qwen2", 1, **options)
    adapter = read_adapter(folder)
    with_peft = PeftModel.from_pretrained(qwen2, folder)
    expected = logits_of(with_peft, token_ids)
    plain = with_peft.unload()
    (tmp_path / "again").mkdir()
    save_adapter(adapter, tmp_path / "again", base_model="tiny")
    with_peft = PeftModel.from_pretrained(plain, tmp_path / "again")
    torch.testing.assert_close(logits_of(with_peft, token_ids), expected, rtol=1e-5, atol=1e-5)
    plain = with_peft.unload()
    merge(plain, adapter)
    torch.testing.assert_close(logits_of(plain, token_ids), expected, rtol=1e-5, atol=1e-5)


def test_fingerprint_follows_content(make_adapter):
    first, second, copy = make_adapter("qwen2", 1), make_adapter("qwen2", 2), make_adapter("qwen2", 1, name="copy")
    assert read_adapter(first).fingerprint == read_adapter(copy).fingerprint != read_adapter(second).fingerprint


def rewrite(folder, change):
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)


def test_missing_folder(tmp_path):
    with pytest.raises(LorarecError, match="nowhere does not exist"):
        read_adapter(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adapter_config.json", r"is not a PEFT folder \(it has no adapter_config\.json\): give one, or a hub id"),
        ("adapter_model.safetensors", r"adapter_model\.safetensors does not exist"),
    ],
)
def test_missing_file(name, message, make_adapter):
    folder = make_adapter("qwen2", 1)
    (folder / name).unlink()
    with pytest.raises(LorarecError, match=message):
        read_adapter(folder)


def test_pickle_is_refused_and_never_loaded(make_adapter, tmp_path):
    folder = make_adapter("qwen2", 1)
    (folder / "adapter_model.safetensors").unlink()

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(LorarecError, match=r"adapter_model\.bin is a pickle"):
        read_adapter(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"\xff" * 64, lambda data: b""])
def test_corrupted_safetensors(damage, make_adapter):
    path = make_adapter("qwen2", 1) / "adapter_model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(LorarecError, match=r"adapter_model\.safetensors is corrupted"):
        read_adapter(path.parent)


def test_nan_weights(make_adapter):
    folder = make_adapter("qwen2", 1)
    rewrite(folder, lambda state: next(iter(state.values())).fill_(float("nan")))
    with pytest.raises(LorarecError, match="holds NaN"):
        read_adapter(folder)


def test_half_a_pair(make_adapter):
    folder = make_adapter("qwen2", 1)
    rewrite(folder, lambda state: state.pop(next(iter(state))))
    with pytest.raises(LorarecError, match="only one of the two matrices"):
        read_adapter(folder)


def test_other_tensors(make_adapter):
    folder = make_adapter("qwen2", 1)
    rewrite(folder, lambda state: state.update({"base_model.model.lm_head.weight": torch.zeros(2)}))
    with pytest.raises(LorarecError, match="no LoRA matrix"):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"peft_type": "IA3"}, "type IA3"),
        ({"bias": "all"}, "trains biases"),
        ({"use_dora": True}, "uses use_dora"),
        ({"modules_to_save": ["lm_head"]}, "uses modules_to_save"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the backbone"),
    ],
)
def test_other_adapters_than_plain_loras_are_refused(setting, message, make_adapter):
    folder = make_adapter("qwen2", 1)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | setting))
    with pytest.raises(LorarecError, match=message):
        read_adapter(folder)


@pytest.mark.parametrize("text", ["{", "[]", '"LORA"', "{}"])
def test_config_that_is_none(text, make_adapter):
    folder = make_adapter("qwen2", 1)
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(LorarecError, match=r"adapter_config\.json"):
        read_adapter(folder)


def test_adapter_of_another_architecture(qwen2, make_adapter, as_backbone):
    with pytest.raises(LorarecError, match="which backbone tiny does not have"):
        read_adapter(make_adapter("gpt2", 1), as_backbone(qwen2))


def test_adapter_of_another_size(qwen2, make_adapter, as_backbone):
    folder = make_adapter("qwen2", 1)
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    rewrite(folder, lambda state: state.update({key: torch.zeros(3, 20)}))
    with pytest.raises(LorarecError, match="is 16 x 20 in it, 16 x 16 in tiny"):
        read_adapter(folder, as_backbone(qwen2))


def test_adapter_of_another_backbone_by_fingerprint(qwen2, make_adapter, as_backbone):
    folder = make_adapter("qwen2", 1)
    meta = {"backbone": {"id": "other/model", "fingerprint": "ffff"}}
    (folder / "lorarec.json").write_text(json.dumps(meta))
    with pytest.raises(LorarecError, match="belongs to backbone other/model"):
        read_adapter(folder, as_backbone(qwen2))
    assert read_adapter(folder).record == AdapterRecord.from_json(folder, meta)


def test_adapter_on_the_vocabulary_projection(qwen2, make_adapter, as_backbone):
    folder = make_adapter("qwen2", 1, target_modules=["q_proj", "lm_head"])
    with pytest.raises(LorarecError, match="lm_head"):
        read_adapter(folder, as_backbone(qwen2))
