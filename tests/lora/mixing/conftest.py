"""Random adapters for the tiny backbones, and prompts for them."""

from pathlib import Path

import polars as pl
import pytest
import torch

from lorarec.data import Dataset, leave_one_out
from lorarec.lora import Adapter, AdapterRecord, save_adapter
from lorarec.lora import entropy_search as entropy
from lorarec.lora.target_layers import dimensions, linear_layers
from lorarec.prompts import PromptBuilder

TITLES = ["red lamp", "small old chair", "big blue puzzle game", "novel", "green guide to a new white table", "brush"]


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Descents end early, to be quick."""
    monkeypatch.setattr(entropy, "MAX_STEPS", 8)


@pytest.fixture
def make_adapter(tmp_path):
    """Write random adapters of a backbone with `lorarec.json`; return the folder."""

    def make(backbone, seed: int, size: float = 0.2, readout: str = "verdict", rank: int = 2) -> Path:
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for name, layer in linear_layers(backbone.model).items():
            width, height = dimensions(layer)
            a = size * torch.randn(rank, width, generator=generator)
            tensors[name] = (a, size * torch.randn(height, rank, generator=generator))
        meta = {"backbone": {"id": backbone.id, "fingerprint": backbone.fingerprint}, "readout": readout}
        meta |= {"options": {"max_history": 3, "lr": 1}}
        folder = tmp_path / f"adapter{seed}"
        folder.mkdir()
        save_adapter(
            Adapter(tensors, dict.fromkeys(tensors, 2.0)), folder, backbone.id, AdapterRecord.from_json(folder, meta)
        )
        return folder

    return make


@pytest.fixture
def pair(tiny_backbone, make_adapter):
    return [make_adapter(tiny_backbone, 1), make_adapter(tiny_backbone, 2)]


@pytest.fixture
def builder(tiny_backbone):
    return PromptBuilder(tiny_backbone.tokenizer)


@pytest.fixture
def make_prompts():
    """Prompts with histories and candidate sets of different lengths."""

    def make(builder, count: int = 6):
        return [builder.example(TITLES[: i % 4], TITLES[i % 3 :][:4]) for i in range(count)]

    return make


@pytest.fixture
def dataset():
    interactions = [
        {"user_id": f"u{user}", "item_id": f"i{(user * 3 + step * (1 + user % 4)) % 40:02}", "timestamp": step}
        for user in range(20)
        for step in range(6)
    ]
    items = [{"item_id": f"i{item:02}", "title": f"title {item}"} for item in range(40)]
    return Dataset.from_frames("shop", pl.DataFrame(interactions), pl.DataFrame(items))


@pytest.fixture
def split(dataset):
    return leave_one_out(dataset, new_items=0.2, negatives=5, seed=1)
