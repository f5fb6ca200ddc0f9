"""A tiny random backbone, and a tiny dataset with its split."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lorarec.backbone.load import Backbone
from lorarec.data import Dataset, Split
from tests.factories import hot_backbone, hot_log


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The order of float additions then does not depend on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def backbone() -> Backbone:
    """A tiny Qwen2 backbone, fresh for each test."""
    return hot_backbone()


@pytest.fixture(scope="session")
def shop() -> tuple[Dataset, Split]:
    """A dataset with hot things, which users like, and its split."""
    return hot_log()


@pytest.fixture
def largest_difference() -> Callable[[Path, Path], float]:
    """Return the largest absolute difference between the weights of two adapter folders."""

    def compare(one: Path, other: Path) -> float:
        left, right = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
        assert left.keys() == right.keys()
        return max((left[name] - right[name]).abs().max().item() for name in left)

    return compare
