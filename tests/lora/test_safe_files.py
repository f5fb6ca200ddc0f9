"""Only regular files of bounded size are read."""

import os
import socket
import struct

import pytest

from lorarec.errors import LorarecError
from lorarec.lora import read_adapter
from lorarec.lora.safe_files import quoted, read_bounded

FILES = ("adapter_config.json", "adapter_model.safetensors", "lorarec.json")


def to_fifo(path) -> None:
    os.mkfifo(path)


def to_socket(path) -> None:
    os.chdir(path.parent)  # the names of sockets are short
    socket.socket(socket.AF_UNIX).bind(path.name)


def to_folder(path) -> None:
    path.mkdir()


def to_zeros(path) -> None:
    path.symlink_to("/dev/zero")


def to_itself(path) -> None:
    path.symlink_to(path.name)


def to_nothing(path) -> None:
    path.symlink_to("gone")


def to_a_huge_file(path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


KINDS = (to_fifo, to_socket, to_folder, to_zeros, to_itself, to_nothing, to_a_huge_file)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", KINDS)
def test_files_that_never_end_or_are_none(kind, name, make_adapter, monkeypatch) -> None:
    monkeypatch.chdir(".")
    folder = make_adapter("qwen2", 1)
    (folder / name).unlink(missing_ok=True)
    kind(folder / name)
    with pytest.raises(LorarecError, match=f"{name} (is not a regular|cannot be read|does not exist|has .* bytes)"):
        read_adapter(folder)


@pytest.mark.parametrize("length", [1 << 63, 1 << 40, (16 << 20) + 1, 1 << 20, 0])
def test_headers_of_safetensors_that_lie(length: int, make_adapter) -> None:
    path = make_adapter("qwen2", 1) / "adapter_model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(LorarecError, match="is corrupted"):
        read_adapter(path.parent)


def test_links_to_regular_files_are_read(make_adapter) -> None:
    """The hub's cache consists of them."""
    folder = make_adapter("qwen2", 1)
    for name in FILES[:2]:
        (folder / name).rename(folder / f"blob-{name}")
        (folder / name).symlink_to(f"blob-{name}")
    assert read_adapter(folder).tensors


def test_a_limit_of_the_callers(make_adapter) -> None:
    folder = make_adapter("qwen2", 1)
    size = (folder / "adapter_model.safetensors").stat().st_size
    assert read_adapter(folder, limit=size).tensors
    with pytest.raises(LorarecError, match=f"more than the limit of {size - 1:,}"):
        read_adapter(folder, limit=size - 1)


def test_files_of_the_system_are_not_followed_for_ever() -> None:
    from pathlib import Path

    with pytest.raises(LorarecError, match="more bytes than the limit"):
        read_bounded(Path("/proc/self/status"), 10)
    assert len(quoted("x" * 10**6)) < 100
