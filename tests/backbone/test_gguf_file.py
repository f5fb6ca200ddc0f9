"""GGUF files: the same model as the original, dequantized once, and files that are refused."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    MambaConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from typer.testing import CliRunner

from lorarec.backbone import Backbone, gguf_file
from lorarec.backbone.gguf_file import original_model, unpacked_gguf
from lorarec.cli.entry import app
from lorarec.data import leave_one_out
from lorarec.data.sample import load_sample
from lorarec.errors import LorarecError
from lorarec.lora import mix, read_adapter
from lorarec.training import TrainingConfig, train
from tests.factories import make_backbone, write_gguf, write_peft_adapter

gguf = pytest.importorskip("gguf", reason="it is not installed: pip install 'lorarec[gguf]'")

TEXTS = ["red lamp", " yes no", "  big   blue\n", "Größe 12"]
#: A chat template that is not in the other files of the tests.
CHAT = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def original(tokenizer: PreTrainedTokenizerFast) -> Backbone:
    """A tiny Llama with its own base of positions and with output weights of its own."""
    rope = {"rope_type": "default", "rope_theta": 500.0}
    return make_backbone("llama", tokenizer, rope_parameters=rope, rms_norm_eps=1e-4)


@pytest.fixture
def file(original: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAREC_CACHE", str(tmp_path / "cache"))
    return write_gguf(original, tmp_path / "model.gguf")


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@torch.no_grad()
def test_a_file_gives_the_logits_and_tokens_of_the_original(original: Backbone, file: Path) -> None:
    loaded = Backbone.from_pretrained(file)
    ids = torch.arange(1, 60)[None]
    torch.testing.assert_close(loaded.model(ids).logits, original.model(ids).logits, atol=1e-5, rtol=1e-5)
    assert loaded.id == str(file)
    assert [loaded.tokenizer(text).input_ids for text in TEXTS] == [
        original.tokenizer(text).input_ids for text in TEXTS
    ]
    assert loaded.tokenizer.eos_token_id == original.tokenizer.eos_token_id
    plain = AutoModelForCausalLM.from_pretrained(unpacked_gguf(file))
    assert torch.equal(plain(ids).logits, loaded.model(ids).logits)


def test_tied_weights_and_the_chat_template(tokenizer: PreTrainedTokenizerFast, file: Path, tmp_path: Path) -> None:
    talking = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|end|>", pad_token="<|end|>", chat_template=CHAT
    )
    tied = make_backbone("llama", talking, tie_word_embeddings=True)
    state = tied.model.state_dict()
    state.pop("lm_head.weight")
    tied.model.state_dict = lambda: state  # type: ignore[method-assign]
    loaded = Backbone.from_pretrained(write_gguf(tied, tmp_path / "tied.gguf"))
    assert loaded.tokenizer.chat_template == CHAT
    ids = torch.arange(1, 60)[None]
    torch.testing.assert_close(loaded.model(ids).logits, tied.model(ids).logits, atol=1e-5, rtol=1e-5)
    assert loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight


def test_weights_are_stored_in_half_precision_where_that_is_exact(
    tokenizer: PreTrainedTokenizerFast, file: Path, tmp_path: Path
) -> None:
    half = make_backbone("llama", tokenizer)
    half.model.bfloat16()
    stored = unpacked_gguf(write_gguf(half, tmp_path / "half.gguf"))
    assert AutoModelForCausalLM.from_pretrained(stored, dtype="auto").dtype == torch.bfloat16
    half.model.save_pretrained(tmp_path / "half")
    half.tokenizer.save_pretrained(tmp_path / "half")
    assert Backbone.from_pretrained(stored).fingerprint == Backbone.from_pretrained(tmp_path / "half").fingerprint


def test_the_second_use_reads_the_cache(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Backbone.from_pretrained(file)
    folder = unpacked_gguf(file)
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(gguf_file, "_read", lambda path: pytest.fail("it was dequantized again"))
    copy = Path(shutil.copy(file, tmp_path / "other name"))
    assert unpacked_gguf(copy) == folder
    fingerprints = {Backbone.from_pretrained(path).fingerprint for path in (file, str(copy), folder)}
    assert fingerprints == {first.fingerprint}
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == written


def test_other_versions_have_folders_of_their_own(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unpacked_gguf(file)
    monkeypatch.setattr(gguf_file, "version", lambda package: "99.1")
    other = unpacked_gguf(file)
    assert other != folder
    assert Backbone.from_pretrained(other).fingerprint == Backbone.from_pretrained(folder).fingerprint


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2000])


def shorten_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:300])


def other_format(file: Path) -> None:
    file.write_bytes(b"PK" + file.read_bytes())


def unknown_architecture(file: Path) -> None:
    writer = gguf.GGUFWriter(file, "unheard")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "model.gguf does not exist: give the path of a GGUF file"),
        (shorten, "model.gguf is truncated or damaged .*: download it again"),
        (shorten_header, "model.gguf is truncated or damaged .*: download it again"),
        (other_format, "model.gguf is not a GGUF file: give one"),
        (unknown_architecture, "model.gguf cannot be dequantized: GGUF model with architecture unheard .*; give the"),
    ],
)
def test_bad_files_are_refused_and_leave_nothing(
    file: Path, spoil: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    spoil(file)
    with pytest.raises(LorarecError, match=message) as caught:
        Backbone.from_pretrained(file)
    assert "\n" not in str(caught.value)
    assert [name for name in entries(tmp_path / "cache" / "gguf") if not name.endswith(".lock")] == []


@pytest.mark.parametrize(
    ("settings", "ignored"),
    [
        ({"rope__scaling__type": "linear"}, "the setting rope.scaling.type = linear"),
        ({"attention__sliding_window": 64.0}, "the setting attention.sliding_window = 64"),
        ({"logit_scale": 0.5}, "the setting logit_scale = 0.5"),
    ],
)
def test_settings_that_transformers_ignores_are_refused(
    original: Backbone, file: Path, settings: dict[str, Any], ignored: str
) -> None:
    with pytest.raises(LorarecError, match=f"model.gguf cannot be dequantized exactly: .* does not read {ignored}"):
        Backbone.from_pretrained(write_gguf(original, file, **settings))


@pytest.mark.parametrize(
    ("name", "ignored"),
    [("rope_freqs.weight", "the tensor rope_freqs.weight"), ("blk.0.attn_norm.bias", "all of its tensors")],
)
def test_tensors_that_transformers_ignores_are_refused(
    original: Backbone, file: Path, name: str, ignored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of Llama 3.1 have factors of the positions, which transformers leaves out without a word."""
    state = original.model.state_dict()
    monkeypatch.setattr(original.model, "state_dict", lambda: state | {name: torch.ones(4)})
    with pytest.raises(LorarecError, match=f"transformers does not read {ignored}"):
        Backbone.from_pretrained(write_gguf(original, file))


def test_a_missing_package_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(LorarecError, match=r"model.gguf needs gguf to be read: pip install 'lorarec\[gguf\]'"):
        Backbone.from_pretrained(file)


def test_a_cache_that_cannot_be_written_to(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("LORAREC_CACHE", str(tmp_path / "taken"))
    with pytest.raises(LorarecError, match=r"cannot write to .*taken"):
        Backbone.from_pretrained(file)


def test_doctor(file: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", str(file)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "LlamaForCausalLM (llama)" in result.stdout
    missing = CliRunner().invoke(app, ["doctor", "missing.gguf"])
    assert "backbone missing.gguf is not a folder or a GGUF file" in str(missing.exception)


@pytest.mark.parametrize(
    ("config", "known"),
    [
        (Qwen2Config(num_attention_heads=4, hidden_size=32), {"attention.head_count": 4, "rope.dimension_count": 8}),
        (Gemma3TextConfig(), {"rope.freq_base": 1e6, "attention.sliding_window": 4096, "attention.key_length": 256}),
        (Phi3Config(), {"rope.scaling.type": "none", "attention.layer_norm_rms_epsilon": 1e-5}),
        (MambaConfig(), {"attention.head_count": None, "attention.layer_norm_rms_epsilon": 1e-5, "logit_scale": None}),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_settings_are_compared_with_the_configuration(config: PretrainedConfig, known: dict[str, Any]) -> None:
    assert {name: gguf_file._setting(config, name) for name in known} == known


HUB = "https://huggingface.co"
CHAT_NAME = {"name": "Tiny Chat 3B"}


@pytest.mark.parametrize(
    ("file_name", "general", "expected"),
    [
        ("model.gguf", {"source.repo_url": f"{HUB}/maker/tiny-chat-3b"}, "maker/tiny-chat-3b"),
        ("model.gguf", {"source.huggingface.repository": "maker/tiny-chat-3b"}, "maker/tiny-chat-3b"),
        ("model.gguf", CHAT_NAME | {"repo_url": f"{HUB}/maker/Tiny-Chat-3B/"}, "maker/Tiny-Chat-3B"),
        ("Tiny-Chat-3B-Q8_0.gguf", {"base_model.0.repo_url": f"{HUB}/maker/Tiny-Chat-3B"}, "maker/Tiny-Chat-3B"),
        # A parent model, or a repository of GGUF files, is not the model.
        ("model.gguf", CHAT_NAME | {"base_model.0.repo_url": f"{HUB}/maker/Tiny-3B"}, "Tiny-Chat-3B"),
        ("model.gguf", CHAT_NAME | {"repo_url": f"{HUB}/other/Tiny-Chat-3B-GGUF"}, "Tiny-Chat-3B"),
        ("model.gguf", CHAT_NAME | {"source.url": "https://maker.example/tiny"}, "Tiny-Chat-3B"),
        ("Tiny-3B.Q4_K_M.gguf", {"basename": "tiny", "name": "run 7", "organization": "maker"}, "maker/Tiny-3B"),
        ("Tiny-3B-UD-IQ2_XXS.gguf", {"basename": "tiny", "organization": "The Maker"}, "Tiny-3B"),
        ("model.gguf", {"basename": "tiny", "name": "Tiny 3B", "organization": "maker"}, "Tiny-3B"),
        ("mine-bf16.gguf", {}, "mine"),
        ("Tiny-3B.F16.gguf", {"organization": "maker"}, "Tiny-3B"),
    ],
)
def test_the_original_model(
    original: Backbone, tmp_path: Path, file_name: str, general: dict[str, str], expected: str
) -> None:
    assert original_model(write_gguf(original, tmp_path / file_name, general)) == expected


def test_the_original_model_of_a_damaged_file(file: Path) -> None:
    shorten_header(file)
    with pytest.raises(LorarecError, match=r"model.gguf is truncated or damaged .*: download it again"):
        original_model(file)


def test_the_original_model_of_smollm2(smollm2: Path) -> None:
    assert original_model(smollm2) == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_an_adapter_names_the_original_model_and_belongs_to_the_weights_of_the_file(
    original: Backbone, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAREC_CACHE", str(tmp_path / "cache"))
    fields = {"source.repo_url": f"{HUB}/maker/Tiny-3B"}
    backbone = Backbone.from_pretrained(write_gguf(original, tmp_path / "Tiny-3B.Q8_0.gguf", fields))
    config = TrainingConfig(samples=4, batch_size=4, negatives=3, epochs=1, eval_users=0, evidence=False)
    data = load_sample()
    trained = train(backbone, [(data, leave_one_out(data))], tmp_path / "adapter", config)
    mixed = mix(backbone, [trained, trained], tmp_path / "mixed", method="fixed", weights=[0.5, 0.5])
    for adapter in (trained, mixed):
        assert adapter.config["base_model_name_or_path"] == "maker/Tiny-3B"
        assert adapter.record is not None
        assert (adapter.record.backbone_id, adapter.record.backbone_fingerprint) == (backbone.id, backbone.fingerprint)
        assert read_adapter(adapter.folder, backbone).tensors
    other = make_backbone("llama", tokenizer, seed=5)
    other.id = "maker/Tiny-3B"  # the weights decide, not the name
    with pytest.raises(LorarecError, match=r"belongs to backbone .*Tiny-3B.Q8_0.gguf \(.*\), not to maker/Tiny-3B"):
        read_adapter(trained.folder, other)


def test_adapters_of_the_original_model_are_accepted_by_its_name(
    original: Backbone, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fields = {"source.repo_url": f"{HUB}/maker/Tiny-3B"}
    backbone = Backbone.from_pretrained(write_gguf(original, file, fields))
    folder = write_peft_adapter(original.model, tmp_path / "adapter", seed=1)
    settings = json.loads((folder / "adapter_config.json").read_text())
    for name, warnings in (("maker/tiny-3b", 0), ("maker/Tiny-7B", 1)):
        (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": name}))
        caplog.clear()
        assert read_adapter(folder, backbone).tensors
        assert len(caplog.records) == warnings
