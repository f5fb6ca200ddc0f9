"""A tiny random backbone and tiny datasets, made on the spot."""

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
    return hot_backbone()


@pytest.fixture(scope="session")
def pair() -> tuple[Dataset, Split]:
    return hot_log()


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
