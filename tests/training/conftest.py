"""A tiny random backbone and tiny datasets, made for the tests."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from lorarec.backbone.load import Backbone
from lorarec.data import Dataset, Split, leave_one_out

ADJECTIVES = ["red", "green", "blue", "small", "large", "old", "new", "hot", "cold", "dry"]
NOUNS = ["lamp", "chair", "table", "plate"]
PROMPT_WORDS = (
    "A user chose, in this order: Would the user choose this next? Answer yes or no. One of these comes - Which"
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The order of float additions then does not depend on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    texts = [f"{PROMPT_WORDS} {adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def make_backbone(seed: int = 0, width: int = 32) -> Backbone:
    """A random Qwen2 of two layers."""
    tokenizer = _tokenizer()
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    return Backbone(Qwen2ForCausalLM(config).eval(), tokenizer, f"tiny-{seed}", f"fingerprint-{seed}-{width}")


def make_dataset(name: str = "shop", users: int = 24, items: int = 40, length: int = 6, seed: int = 0) -> Dataset:
    """Every user begins with any item and then chooses hot items, so that there is something to learn."""
    rng = random.Random(f"{name} {seed}")
    titles = [
        f"{ADJECTIVES[item % 10]} {NOUNS[item // 10 % 4]} {name} {item // 40 or ''}".strip() for item in range(items)
    ]
    hot = [item for item in range(items) if ADJECTIVES[item % 10] in ("hot", "red", "new")]
    rows: list[dict[str, Any]] = []
    for user in range(users):
        liked = rng.sample(hot, min(length - 1, len(hot)))
        first = rng.choice([item for item in range(items) if item not in hot])
        for time, item in enumerate([first, *liked]):
            rows.append({"user_id": f"u{user:03}", "item_id": f"i{item:03}", "timestamp": time})
    catalogue = pl.DataFrame({"item_id": [f"i{item:03}" for item in range(items)], "title": titles})
    return Dataset.from_frames(name, pl.DataFrame(rows), catalogue)


def make_pair(name: str = "shop", new_items: float = 0.1, **options: Any) -> tuple[Dataset, Split]:
    """A dataset and its split."""
    dataset = make_dataset(name, **options)
    return dataset, leave_one_out(dataset, new_items=new_items, negatives=9)


@pytest.fixture
def backbone() -> Backbone:
    return make_backbone()


@pytest.fixture(scope="session")
def pair() -> tuple[Dataset, Split]:
    return make_pair()


@pytest.fixture(scope="session")
def pairs() -> Callable[..., tuple[Dataset, Split]]:
    return make_pair


@pytest.fixture(scope="session")
def backbones() -> Callable[..., Backbone]:
    return make_backbone


@pytest.fixture
def weights() -> Callable[[Path], dict[str, torch.Tensor]]:
    """The tensors of an adapter folder."""
    return lambda folder: load_file(Path(folder) / "adapter_model.safetensors")


@pytest.fixture
def difference(weights: Callable[[Path], dict[str, torch.Tensor]]) -> Callable[[Path, Path], float]:
    """The largest absolute difference between the weights of two adapter folders."""

    def largest(one: Path, other: Path) -> float:
        left, right = weights(one), weights(other)
        assert left.keys() == right.keys()
        return max((left[name] - right[name]).abs().max().item() for name in left)

    return largest
