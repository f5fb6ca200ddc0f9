"""Random adapters for the tiny backbones, and prompts for them."""

from pathlib import Path

import pytest

from lorarec.data import leave_one_out
from lorarec.lora import AdapterRecord, save_adapter, unlabelled_search
from lorarec.prompts import PromptBuilder
from tests.factories import dataset_of, numbered_titles, random_adapter

TITLES = ["red lamp", "small old chair", "big blue puzzle game", "novel", "green guide to a new white table", "brush"]


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Descents end early, to be quick."""
    monkeypatch.setattr(unlabelled_search, "MAX_STEPS", 8)


@pytest.fixture
def make_adapter(tmp_path):
    """Write random adapters of a backbone with `lorarec.json`; return the folder."""

    def make(backbone, seed: int, std: float = 0.2, readout: str = "verdict", r: int = 2) -> Path:
        meta = {"backbone": {"id": backbone.id, "fingerprint": backbone.fingerprint}, "readout": readout}
        meta |= {"options": {"max_history": 3, "lr": 1}}
        folder = tmp_path / f"adapter{seed}"
        folder.mkdir()
        record = AdapterRecord.from_json(folder, meta)
        save_adapter(random_adapter(backbone, seed, r, std), folder, backbone.id, record)
        return folder

    return make


@pytest.fixture
def adapters(tiny_backbone, make_adapter):
    """Folders of two random adapters."""
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
    rows = [
        (f"u{user}", f"i{(user * 3 + step * (1 + user % 4)) % 40:02}", step) for user in range(20) for step in range(6)
    ]
    return dataset_of(rows, numbered_titles(40, "title"), "shop")


@pytest.fixture
def split(dataset):
    return leave_one_out(dataset, new_items=0.2, negatives=5, seed=1)
