"""Tiny models and vocabularies that are made for the tests."""

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

from lorarec.backbone import Backbone
from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.io.artefacts import write_json

WORDS = ["red green blue black white small big old new", "lamp chair table lipstick brush game puzzle novel guide"]
_COLOURS = ["red", "green", "blue", "black", "white", "small", "big", "old"]
_THINGS = ["lamp", "chair", "table", "brush"]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests and the processes that they start leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORAREC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over a few words; knows yes and no."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" " + " ".join(WORDS)] * 50 + ["yes", "no"] * 50, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")


def make_model(kind: str, vocabulary: int) -> Any:
    """A random float32 model of the named architecture, with weights large enough for scores to differ."""
    torch.manual_seed(0)
    shared = {"vocab_size": vocabulary, "initializer_range": 0.2, "bos_token_id": None, "eos_token_id": 0}
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **shared)).eval()
    config, model, special = {
        "llama": (LlamaConfig, LlamaForCausalLM, {}),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
        "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 16}),
        "lfm2": (Lfm2Config, Lfm2ForCausalLM, {"layer_types": ["conv", "full_attention"]}),
        "recurrent_gemma": (
            RecurrentGemmaConfig,
            RecurrentGemmaForCausalLM,
            {"block_types": ["recurrent", "attention"], "lru_width": 32, "attention_window_size": 16, "head_dim": 8},
        ),
    }[kind]
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    made = model(config(**shape, num_key_value_heads=2, max_position_embeddings=512, **special, **shared)).eval()
    if kind == "recurrent_gemma":  # it has a scale of initial weights of its own, too small for scores to differ
        for parameter in made.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.2)
    return made


@pytest.fixture(params=["qwen2", "llama", "gpt2", "mistral", "lfm2", "recurrent_gemma"])
def any_backbone(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> Backbone:
    """Tiny backbones of several architectures: positions of two kinds, a window, convolution, recurrence."""
    return Backbone(make_model(request.param, len(tokenizer)), tokenizer, f"tiny-{request.param}", request.param)


@pytest.fixture
def tiny_backbone(tokenizer: PreTrainedTokenizerFast) -> Backbone:
    """A tiny Qwen2 backbone, fresh for each test."""
    return Backbone(make_model("qwen2", len(tokenizer)), tokenizer, "tiny-qwen2", "qwen2")


@pytest.fixture(scope="session")
def backbone_folder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Qwen2 backbone on disk."""
    folder = tmp_path_factory.mktemp("backbone")
    make_model("qwen2", len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def shared_backbone(tokenizer: PreTrainedTokenizerFast) -> Backbone:
    """A tiny Qwen2 backbone for tests that do not change it."""
    return Backbone(make_model("qwen2", len(tokenizer)), tokenizer, "tiny-qwen2", "qwen2")


@pytest.fixture(scope="session")
def write_adapter() -> Callable[..., Path]:
    """Write a folder with random factors by PEFT alone, and lorarec.json when given; leaves the model as it was."""

    def write(model: Any, folder: Path, seed: int, meta: dict[str, Any] | None = None, **options: Any) -> Path:
        settings = {"r": 3, "lora_alpha": 6, "target_modules": "all-linear"} | options
        peft = get_peft_model(copy.deepcopy(model), LoraConfig(**settings))
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
        peft.save_pretrained(folder)
        if meta is not None:
            write_json(folder / "lorarec.json", meta)
        return folder

    return write


@pytest.fixture(scope="session")
def datasets_folder() -> Path:
    """Folder of real datasets named by LORAREC_DATASETS; the test is skipped without it."""
    folder = os.environ.get("LORAREC_DATASETS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("LORAREC_DATASETS names no folder of datasets")
    return Path(folder)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A cluster on this machine; Ray gives its processes 30 seconds to start, so a crowded one gets several tries."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'lorarec[ray]'")
    from lorarec.io.ray_cluster import cluster

    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("RAY_worker_niceness", "0")  # other tests must not starve the workers
        for left in (2, 1, 0):
            try:
                stack.enter_context(cluster())
                break
            except LorarecError:
                if not left:
                    raise
        yield
    assert not ray.is_initialized()


@pytest.fixture(scope="session")
def taste() -> Dataset:
    """30 users, 12 ratings each of 32 things; women like lamps and chairs, men the rest.

    The last user's ratings are all of one moment at the end, so that it is unseen and without a history.
    """
    rng = np.random.default_rng(0)
    rows = []
    for user in range(30):
        things = rng.choice(32, 12, replace=False)
        for at, thing in enumerate(things):
            time = 10**6 if user == 29 else at * 100 + user
            rows.append((f"u{user:02}", f"i{thing:02}", time, 5.0 if (thing < 16) == (user % 2 == 0) else 2.0))
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
    titles = [f"{colour} {thing}" for thing in _THINGS for colour in _COLOURS]
    items = pl.DataFrame({"item_id": [f"i{thing:02}" for thing in range(32)], "title": titles})
    users = pl.DataFrame({"user_id": [f"u{user:02}" for user in range(30)], "gender": ["F", "M"] * 15})
    return Dataset.from_frames("taste", pl.DataFrame(rows, schema=schema, orient="row"), items, users)
