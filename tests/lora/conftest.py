"""Tiny random causal LMs of three architectures, and random adapters written by PEFT itself."""

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lorarec.backbone import Backbone

VOCABULARY = 61
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


def tiny_model(architecture: str):
    torch.manual_seed(0)
    if architecture == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=4)).eval()
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS)).eval()
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, **HEADS)).eval()


@pytest.fixture(params=["qwen2", "llama", "gpt2"])
def architecture(request):
    return request.param


@pytest.fixture
def model(architecture):
    return tiny_model(architecture)


@pytest.fixture
def qwen2():
    return tiny_model("qwen2")


@pytest.fixture
def as_backbone():
    return lambda model, name="tiny": Backbone(model, None, name, "0123456789abcdef")


@pytest.fixture
def make_adapter(write_adapter, tmp_path):
    """Write a PEFT folder for a model's architecture with random factors; return the folder."""

    def make(architecture: str, seed: int, name: str | None = None, **options) -> Path:
        folder = tmp_path / (name or f"adapter{seed}")
        return write_adapter(tiny_model(architecture), folder, seed, task_type="CAUSAL_LM", **options)

    return make


@pytest.fixture
def token_ids():
    return torch.randint(VOCABULARY, (4, 11), generator=torch.Generator().manual_seed(5))


@pytest.fixture
def logits():
    def run(model, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=ids).logits

    return run
