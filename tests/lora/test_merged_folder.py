"""Merged models: what plain Transformers loads gives the logits of the adapter by PEFT."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from typer.testing import CliRunner

from lorarec.backbone import Backbone
from lorarec.cli.entry import app
from lorarec.errors import LorarecError
from lorarec.lora import AdapterRecord, MixedLinear, prompt_config, read_adapter, save_merged
from lorarec.prompts import PromptConfig, TemplateText
from lorarec.ranking import Ranker
from tests.factories import make_backbone, save_backbone, write_gguf, write_peft_adapter

IDS = torch.arange(1, 60)[None]


@torch.no_grad()
def check(source: Path | str, adapter: Path, merged: Path) -> None:
    """Compare a merged folder with PEFT on the model that Transformers loads from `source`."""
    plain = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    before = plain(IDS).logits
    expected = PeftModel.from_pretrained(plain, adapter)(IDS).logits
    found = AutoModelForCausalLM.from_pretrained(merged)(IDS).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - before).abs().max() > 0.1


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2", "falcon"])
def test_logits_are_those_of_the_adapter(architecture: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    talking = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, chat_template="{{ messages }}")
    source = save_backbone(make_backbone(architecture, talking, tie_word_embeddings=True), tmp_path / "source")
    backbone = Backbone.from_pretrained(source)
    before = {name: weight.clone() for name, weight in backbone.model.state_dict().items()}
    adapter = write_peft_adapter(backbone.model, tmp_path / "adapter", seed=1)
    save_merged(backbone, adapter, tmp_path / "merged")
    assert all(torch.equal(weight, before[name]) for name, weight in backbone.model.state_dict().items())
    check(source, adapter, tmp_path / "merged")
    read = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert read("red lamp").input_ids == tokenizer("red lamp").input_ids
    assert read.chat_template == "{{ messages }}"


def test_export_of_a_gguf_backbone(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="it is not installed: pip install 'lorarec[gguf]'")
    original = make_backbone("llama", tokenizer)
    file = write_gguf(original, tmp_path / "model.gguf")
    source = save_backbone(original, tmp_path / "source")
    adapter = write_peft_adapter(original.model, tmp_path / "adapter", seed=1)
    words = ["export", str(adapter), "--merged", str(tmp_path / "merged"), "--backbone", str(file)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (0, f"Merged model written to {tmp_path / 'merged'}\n")
    check(source, adapter, tmp_path / "merged")
    record = json.loads((tmp_path / "merged" / "merged.json").read_text())
    assert (record["backbone"], record["adapter"]) == (str(file), str(adapter))
    assert record["backbone_fingerprint"] == Backbone.from_pretrained(file).fingerprint
    assert CliRunner().invoke(app, ["doctor", str(tmp_path / "merged")]).exit_code == 0
    again = CliRunner().invoke(app, words)
    assert "exists already: choose another folder or pass --overwrite" in str(again.exception)
    assert CliRunner().invoke(app, [*words, "--overwrite"]).exit_code == 0


def test_the_record_has_the_prompts_of_the_adapter(tiny_backbone: Backbone, tmp_path: Path) -> None:
    folder = write_peft_adapter(tiny_backbone.model, tmp_path / "adapter", seed=1)
    prompt = PromptConfig(readout="likelihood", template=TemplateText("mine", "{{ title }}"), max_history=3)
    save_merged(tiny_backbone, replace(read_adapter(folder), record=AdapterRecord(prompt)), tmp_path / "merged")
    recorded = json.loads((tmp_path / "merged" / "merged.json").read_text())["prompt"]
    assert PromptConfig(**recorded | {"template": TemplateText(**recorded["template"])}) == prompt


def test_a_ranking_with_other_prompts_than_those_of_the_adapter_warns(
    tiny_backbone: Backbone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_peft_adapter(tiny_backbone.model, tmp_path / "adapter", seed=1)
    trained = replace(prompt_config(None), max_history=3)
    save_merged(tiny_backbone, replace(read_adapter(folder), record=AdapterRecord(trained)), tmp_path / "merged")
    merged = Backbone.from_pretrained(tmp_path / "merged")
    Ranker(merged, max_history=3)
    assert not caplog.messages
    Ranker(merged)
    assert caplog.messages == [
        f"{tmp_path / 'merged'} is merged with an adapter that was trained with other prompts (max_history): its "
        "scores are not those of the adapter"
    ]


def test_the_same_template_by_path_and_by_text_does_not_warn(
    tiny_backbone: Backbone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "{% for title in history %}{{ title }}, {% endfor %}likes {{ candidate }}?"
    file, other = tmp_path / "mine.jinja", tmp_path / "other.jinja"
    file.write_text(text)
    other.write_text(f"Guess: {text}")
    folder = write_peft_adapter(tiny_backbone.model, tmp_path / "adapter", seed=1)
    trained = replace(prompt_config(None), template=TemplateText("/elsewhere/mine.jinja", text))
    save_merged(tiny_backbone, replace(read_adapter(folder), record=AdapterRecord(trained)), tmp_path / "merged")
    merged = Backbone.from_pretrained(tmp_path / "merged")
    for template in (file, str(file), TemplateText("mine", text)):
        Ranker(merged, template=template)
    assert not caplog.messages
    Ranker(merged, template=other)
    assert ["trained with other prompts (template)" in message for message in caplog.messages] == [True]


def test_a_bundled_template_by_its_name_and_by_default_does_not_warn(
    tiny_backbone: Backbone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_peft_adapter(tiny_backbone.model, tmp_path / "adapter", seed=1)
    save_merged(tiny_backbone, replace(read_adapter(folder), record=AdapterRecord(PromptConfig())), tmp_path / "merged")
    merged = Backbone.from_pretrained(tmp_path / "merged")
    for template in (None, "verdict", "verdict-v1", "verdict-v2"):  # the versions are the same without evidence
        Ranker(merged, template=template)
    assert not caplog.messages


def test_an_update_that_bfloat16_would_lose_is_refused(tiny_backbone: Backbone, tmp_path: Path) -> None:
    adapter = write_peft_adapter(tiny_backbone.model, tmp_path / "adapter", seed=1, lora_alpha=1e-3)
    tiny_backbone.model.bfloat16()
    with pytest.raises(LorarecError, match=r'cannot be merged into model.layers.0.*load .* with dtype="float32"'):
        save_merged(tiny_backbone, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    assert not any(isinstance(layer, MixedLinear) for layer in tiny_backbone.model.modules())


def test_folders_of_the_user_are_not_overwritten(tiny_backbone: Backbone, tmp_path: Path) -> None:
    adapter = write_peft_adapter(tiny_backbone.model, tmp_path / "adapter", seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(LorarecError, match="so it is not overwritten"):
        save_merged(tiny_backbone, adapter, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
