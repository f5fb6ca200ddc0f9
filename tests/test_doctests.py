"""Every name of `lorarec` has an example in its docstring, and the examples run."""

import doctest
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import lorarec
from lorarec import Backbone, TrainingConfig, load_sample, load_split, train

NAMES = sorted(set(lorarec.__all__) - {"__version__"})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folders that the examples read: three datasets, and an adapter trained on a few cases of each."""
    home = tmp_path_factory.mktemp("workspace")
    backbone = Backbone.from_pretrained("embedded")
    config = TrainingConfig(samples=8, epochs=1, batch_size=8, negatives=3, eval_users=0)
    for name, domain in (("shop", "action"), ("games", "comedy"), ("office", "thriller")):
        whole = load_sample(domain)
        some = whole.interactions["user_id"].unique(maintain_order=True)[:40]
        rows = whole.interactions.filter(whole.interactions["user_id"].is_in(some.implode()))
        dataset = whole.subset(rows, filter_note="40 users", name=name).save(home / "data" / name)
        load_split(dataset)
        if name != "office":
            train(backbone, [dataset], home / "adapters" / {"games": "general"}.get(name, name), config)
    before = Path.cwd()
    os.chdir(home)
    yield home
    os.chdir(before)


@pytest.mark.parametrize("name", NAMES)
def test_example_of(name: str, workspace: Path) -> None:
    examples = doctest.DocTestFinder().find(getattr(lorarec, name), name, globs={})
    assert [each for each in examples if each.name == name and each.examples], f"lorarec.{name} has no example"
    for example in examples:
        printed: list[str] = []
        assert doctest.DocTestRunner(verbose=False).run(example, out=printed.append).failed == 0, "".join(printed)
