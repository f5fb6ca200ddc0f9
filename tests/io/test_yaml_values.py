"""YAML files as plain values, and files that cannot be used."""

from pathlib import Path

import pytest

from lorarec.errors import LorarecError
from lorarec.io.yaml_values import read_yaml


def test_values_are_those_of_yaml(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("seeds: [1, 2]\nrows: &all {a: {b: 0.5}, c:}\nothers: {<<: *all, a: 1}\nlike: *all\n")
    rows = {"a": {"b": 0.5}, "c": None}
    assert read_yaml(path, "recipe") == {"seeds": [1, 2], "rows": rows, "others": rows | {"a": 1}, "like": rows}
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_yaml(path, "recipe") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"rows:\n  sasrec: 1\n  bpr-mf: 2\n  sasrec: 3\n", ", line 4 is not YAML: the key 'sasrec' is there twice"),
        (b"a: 1\n\tb: 2", ", line 2 is not YAML: found character '\\t' that cannot start any token"),
        (b"a: [1,\n", ", line 2 is not YAML: expected the node content, but found '<stream end>'"),
        (b"a: \x00", " is not YAML: "),
        (b"a: caf\xe9", " is not UTF-8 text: convert it"),
        (b"a: !!python/name:os.system", ", line 1 is not YAML: could not determine a constructor for the tag"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(LorarecError) as refused:
        read_yaml(path, "recipe")
    assert str(refused.value).startswith(f"recipe {path}{message}")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match=r"cannot read recipe .*none\.yaml: No such file or directory"):
        read_yaml(tmp_path / "none.yaml", "recipe")
