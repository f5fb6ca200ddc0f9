import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM
from typer.testing import CliRunner

from lorarec.backbone.load import embedded_folder, load_tokenizer
from lorarec.cli.entry import app
from lorarec.errors import LorarecError

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def write(model: torch.nn.Module, folder: Path) -> str:
    model.save_pretrained(folder)
    load_tokenizer(str(embedded_folder())).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def vocabulary() -> int:
    return len(load_tokenizer(str(embedded_folder())))


def test_it_prints_the_plan_and_what_was_measured(tmp_path: Path, vocabulary: int) -> None:
    config = MistralConfig(vocab_size=vocabulary, num_key_value_heads=2, sliding_window=32, **SIZES)
    folder = write(MistralForCausalLM(config), tmp_path / "mistral")
    result = CliRunner().invoke(app, ["doctor", folder], catch_exceptions=False)
    assert result.exit_code == 0
    lines = {line[:22].strip(): line[22:].strip() for line in result.stdout.splitlines()}
    assert lines["model"].startswith("MistralForCausalLM (mistral), ")
    assert (lines["plan"], lines["attention windows"], lines["readout verdict"]) == ("tree", "32", "yes")
    found = json.loads(CliRunner().invoke(app, ["doctor", folder, "--json"]).stdout)
    assert found["exact"]
    assert found["difference"] <= found["tolerance"] == 1e-3


def test_a_model_that_cannot_be_scored(tmp_path: Path, vocabulary: int) -> None:
    folder = write(BertLMHeadModel(BertConfig(vocab_size=vocabulary, **SIZES)), tmp_path / "bert")
    for arguments in (["doctor", folder], ["evaluate", str(tmp_path / "shop"), "--backbone", folder]):
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, LorarecError)
    assert "BertLMHeadModel (bert) cannot be scored" in str(CliRunner().invoke(app, ["doctor", folder]).exception)


def test_prompts_end_where_positions_do(tmp_path: Path, vocabulary: int, shop: Path) -> None:
    """A table of 96 positions, though prompts may be of 1,024 tokens: the oldest history is left out."""
    config = GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=96)
    folder = write(GPT2LMHeadModel(config), tmp_path / "gpt2")
    arguments = ["evaluate", str(shop), "--backbone", folder, "--limit", "5", "--out", str(tmp_path / "report")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "report" / "metrics.json").exists()
