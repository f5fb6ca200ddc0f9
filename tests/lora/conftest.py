"""Tiny random causal LMs of three architectures, and random adapters written by PEFT itself."""

from pathlib import Path

import pytest
import torch

from lorarec.backbone import Backbone
from tests.factories import tiny_model, write_peft_adapter

VOCABULARY = 61


def small_model(architecture: str):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 1024}
    return tiny_model(architecture, VOCABULARY, **sizes, initializer_range=0.02)


@pytest.fixture(params=["qwen2", "llama", "gpt2"])
def architecture(request):
    return request.param


@pytest.fixture
def model(architecture):
    return small_model(architecture)


@pytest.fixture
def qwen2():
    return small_model("qwen2")


@pytest.fixture
def as_backbone():
    """Make a backbone without a tokenizer of a model."""
    return lambda model, name="tiny": Backbone(model, None, name, "0123456789abcdef")


@pytest.fixture
def make_adapter(tmp_path):
    """Write a PEFT folder for a model's architecture with random factors; return the folder."""

    def make(architecture: str, seed: int, name: str | None = None, **options) -> Path:
        folder = tmp_path / (name or f"adapter{seed}")
        return write_peft_adapter(small_model(architecture), folder, seed, task_type="CAUSAL_LM", **options)

    return make


@pytest.fixture
def token_ids():
    return torch.randint(VOCABULARY, (4, 11), generator=torch.Generator().manual_seed(5))


@pytest.fixture
def logits_of():
    """Return the logits of a model for token ids."""

    def run(model, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=ids).logits

    return run
