"""GGUF files: the same model as the original, dequantized once, and files that are refused."""

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
from lorarec.backbone.gguf_file import unpacked_gguf
from lorarec.cli.entry import app
from lorarec.errors import LorarecError
from lorarec.prompts import PromptBuilder
from lorarec.scoring import score
from tests.factories import make_backbone, write_gguf

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


@torch.no_grad()
def test_one_pass_equals_one_by_one_on_smollm2(smollm2: Path) -> None:
    backbone = Backbone.from_pretrained(smollm2, device="cpu", check=False)
    assert backbone.model.num_parameters() == 134_515_008
    builder = PromptBuilder(backbone.tokenizer)
    assert builder.template.chat is not None
    example = builder.example(["Toy Story", "Finding Nemo"], ["A Bug's Life", "Heat", "Monsters, Inc."])
    assert backbone.tokenizer.decode(example.prompt).startswith("<|im_start|>")
    yes, no = builder.yes_no
    alone = []
    for branch in example.branches:
        logits = backbone.model(input_ids=torch.tensor([example.prompt + branch])).logits[0, -1]
        alone.append(float(logits[yes] - logits[no]))
    np.testing.assert_allclose(score(backbone.model, [example], builder)[0], alone, atol=2e-4)
    assert np.std(alone) > 0.01
