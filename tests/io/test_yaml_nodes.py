"""YAML as text with lines, and files that cannot be used."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorarec.errors import LorarecError
from lorarec.io.yaml_nodes import YamlNode, parse_yaml_nodes, read_yaml_nodes

SECRET = "hunter2"


def plain(node: YamlNode) -> Any:
    if isinstance(node.value, list):
        return [plain(each) for each in node.value]
    if isinstance(node.value, dict):
        return {name: plain(each) for name, each in node.value.items()}
    return node.value


def test_values_are_as_written_and_have_lines(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(
        "port: 0123  # octal for YAML\nswitch: yes\nempty:\nnothing: ~\ntext: 'a: b'\nlist:\n  - 1e3\n  - x\n"
    )
    node = read_yaml_nodes(path, "file")
    assert plain(node) == {
        "port": "0123",
        "switch": "yes",
        "empty": None,
        "nothing": None,
        "text": "a: b",
        "list": ["1e3", "x"],
    }
    assert isinstance(node.value, dict)
    assert [each.line for each in node.value.values()] == [1, 2, 3, 4, 5, 6]
    assert [each.line for each in node.value["list"].value] == [7, 8]  # type: ignore[union-attr]


def test_an_empty_file_is_null() -> None:
    assert parse_yaml_nodes(b"", "file").value is None
    assert parse_yaml_nodes(b"\xef\xbb\xbf# only a remark", "file").value is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a: [hunter2", "line 1: this is not YAML"),
        (b"a: 1\n\tb: hunter2", "line 2: this is not YAML"),
        (b"a: 1\n---\nb: hunter2", "line 2: this is not YAML"),
        (b"a: &x hunter2\nb: *x", "line 2: this is not YAML"),
        (b"a: *hunter2", "line 1: this is not YAML"),
        (b"hunter2: 1\nhunter2: 2", "line 2: the mapping has the same name twice"),
        (b"a: !!python/object:hunter2 {}", "line 1: a value has a tag"),
        (b"a: !hunter2 1", "line 1: a value has a tag"),
        (b"[hunter2]: 1", "line 1: a name is a list or a mapping"),
        (b"a: \xff hunter2", "is not UTF-8"),
        (b"a: hunter2\0", "not YAML"),
        (b"[" * 100_000 + b"hunter2", "not YAML"),
        (b"{" * 100_000, "not YAML"),
    ],
)
def test_what_is_refused_is_not_repeated(content: bytes, reason: str) -> None:
    with pytest.raises(LorarecError, match=reason) as refused:
        parse_yaml_nodes(content, "file x")
    assert SECRET not in str(refused.value)
    assert str(refused.value).startswith("file x")
    assert "\n" not in str(refused.value)


@given(st.binary(max_size=200) | st.text("ab:-[]{}&*!%@`'\"|>#? \n\t\\", max_size=60).map(str.encode))
def test_any_content_is_read_or_refused(content: bytes) -> None:
    with suppress(LorarecError):
        parse_yaml_nodes(content, "file")


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"#" * (1 << 21))
    unusable = {tmp_path / "none": "No such file", tmp_path: "not a regular file", large: "is larger than"}
    for path, reason in unusable.items():
        with pytest.raises(LorarecError, match=reason):
            read_yaml_nodes(path, "keys file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LorarecError, match="not a regular file"):  # it would wait for ever for a writer
        read_yaml_nodes(tmp_path / "pipe", "keys file")
