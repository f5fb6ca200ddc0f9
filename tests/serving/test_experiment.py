"""Experiments: their files, and the assignment of users to variants."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

import lorarec
from lorarec.errors import LorarecError
from lorarec.serving.experiment import Experiment, hashed_position

SHARES = {"control": 0.5, "mixed": 0.3, "off": 0.0, "fused": 0.2}


def experiment(name: str = "homepage", **shares: float) -> Experiment:
    variants = [{"name": each, "share": share, "adapter": "shop"} for each, share in (shares or SHARES).items()]
    return Experiment.model_validate({"name": name, "variants": variants})


def test_positions_are_those_of_the_formula() -> None:
    """Others compute the same assignment from the documented formula; these numbers must never change."""
    for unit in ("u1", "u2", "ü/\U0001f600", " ", "x" * 500):
        digest = hashlib.sha256(b"homepage\0" + unit.encode("utf-8")).hexdigest()
        assert hashed_position("homepage", unit) == int(digest[:16], 16) // 2**11 / 2**53
    fixed = {"u1": 0.4905368490779206, "u2": 0.15295856391172258, "ü/\U0001f600": 0.6171491029207546}
    assert {unit: hashed_position("homepage", unit) for unit in fixed} == fixed


def test_users_keep_their_variant_in_every_process() -> None:
    users = [f"user {k}" for k in range(200)]
    code = (
        "from tests.serving.test_experiment import experiment\n"
        "print(*(experiment().assign(f'user {k}').name for k in range(200)))"
    )
    root = Path(lorarec.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True)
    assert other.stdout.split() == [experiment().assign(user).name for user in users]


@pytest.mark.parametrize("name", ["homepage", "homepage-2", "b"])
def test_shares_are_those_of_the_users(name: str) -> None:
    count = 40_000
    found = Counter(experiment(name).assign(f"u{k}").name for k in range(count))
    assert found["off"] == 0
    used = [each for each, share in SHARES.items() if share]
    test = stats.chisquare([found[each] for each in used], [count * SHARES[each] for each in used])
    assert test.pvalue > 1e-4


def test_experiments_are_assigned_independently() -> None:
    """Users of a variant of one experiment fall into the variants of another as all users do."""
    first, second = experiment("one", a=0.5, b=0.5), experiment("two", a=0.5, b=0.5)
    table = [[0, 0], [0, 0]]
    for k in range(20_000):
        user = f"u{k}"
        table[first.assign(user).name == "a"][second.assign(user).name == "a"] += 1
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_positions_are_uniform() -> None:
    positions = [hashed_position("homepage", str(k)) for k in range(20_000)]
    assert stats.kstest(positions, "uniform").pvalue > 1e-4
    assert 0 <= min(positions) < max(positions) < 1


def test_a_larger_first_share_moves_users_only_into_it() -> None:
    before, after = experiment(a=0.1, b=0.9), experiment(a=0.3, b=0.7)
    for k in range(2000):
        moved = before.assign(f"u{k}").name, after.assign(f"u{k}").name
        assert moved in {("a", "a"), ("b", "b"), ("b", "a")}


def test_rounded_shares_leave_no_user_out() -> None:
    thirds = experiment(a=0.333333, b=0.333333, c=0.333333, d=0.0)
    ends = Counter(thirds.assign(f"u{k}").name for k in range(2000))
    assert set(ends) == {"a", "b", "c"}


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "variants.yaml").write_text(
        "name: homepage\n"
        "variants:\n"
        "  - {name: control, share: 0.5, adapter: shop}\n"
        "  - {name: mixed, share: 0.25, adapter: {general: 0.3, shop: 0.7}}\n"
        "  - {name: plain, share: 0.25, adapter: {}}\n"
        "  - {name: fused, share: 0, fusion: true}\n"
    )
    read = Experiment.load(tmp_path / "variants.yaml")
    assert read.control.name == "control"
    assert [(each.name, each.adapter, each.fusion) for each in read.variants] == [
        ("control", "shop", False),
        ("mixed", {"general": 0.3, "shop": 0.7}, False),
        ("plain", {}, False),
        ("fused", None, True),
    ]


def variant(**fields: Any) -> str:
    return f"name: x\nvariants: [{ ({'name': 'a', 'share': 1, 'adapter': 'shop'} | fields)!r}]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nvariants: [{name: a, share: 0.5, adapter: s}]", "sum to 0.5 (a 0.5): they must sum to 1"),
        (variant(share=1.5), "key variants.0.share: Input should be less than or equal to 1, got 1.5"),
        (variant(share="1"), "key variants.0.share: input should be a number"),
        (variant(name="a b"), "key variants.0.name: String should match pattern"),
        (variant(fusion=True), "key variants.0: give either adapter (a name, or weights by name) or fusion: true"),
        (variant(adapter={"a": 1.5}), "key variants.0.adapter.a: Input should be less than or equal to 1, got 1.5"),
        (variant(more=1), "key variants.0.more: Extra inputs are not permitted"),
        ("name: x", "key variants: Field required"),
        ("name: x\nvariants: []", "key variants: Tuple should have at least 1 item"),
        (
            "name: x\nvariants: [{name: a, share: 0.5, adapter: s}, {name: a, share: 0.5, adapter: s}]",
            "two variants are called 'a'",
        ),
        ("a: [", "is not YAML"),
        ("name: x\nname: y", "line 2 is not YAML: the key 'name' is there twice: remove one of them"),
        ("- 1", "must have the keys name and variants"),
        (None, "No such file or directory"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "variants.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(LorarecError) as refused:
        Experiment.load(path)
    assert f"experiment {path}" in str(refused.value)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
