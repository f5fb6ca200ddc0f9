"""Writing to a full or read-only disk ends in one line; earlier files remain, and there are no others."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from sqlalchemy import create_engine, text

from lorarec.backbone import Backbone
from lorarec.data import Dataset, leave_one_out
from lorarec.data.description import plot_lengths
from lorarec.data.sample import load_sample
from lorarec.errors import LorarecError
from lorarec.io.artefacts import new_file, new_folder, write_json, write_text
from lorarec.io.disk import disk_errors, disk_reason
from lorarec.lora import AdapterRecord, mix, read_adapter, save_adapter, save_merged
from lorarec.ranking import fuse
from lorarec.recommenders import new_recommender
from lorarec.retrieval import Index
from lorarec.training import TrainingConfig, train

LARGE = 1 << 20


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own with 16 KiB left; only root can mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk cannot be mounted here")
    try:
        (disk / "filler").write_bytes(bytes(240 << 10))
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _refused(full: Path, work: Callable[[Path], object]) -> None:
    with pytest.raises(LorarecError, match=rf"cannot write to {full}/new.*: (No space left on device|the disk may be)"):
        work(full / "new")
    assert [path.name for path in full.iterdir()] == ["filler"]


def _save_tensors(folder: Path) -> None:
    save_file({"a": torch.zeros(LARGE)}, folder / "a.safetensors")


WRITERS: dict[str, Callable[[Path], object]] = {
    "parquet": lambda folder: pl.DataFrame({"a": np.random.default_rng(0).random(LARGE)}).write_parquet(folder / "a"),
    "safetensors": _save_tensors,
    "json": lambda folder: write_json(folder / "a.json", "x" * LARGE),
    "text": lambda folder: (folder / "a.txt").write_text("x" * LARGE),
    "numpy": lambda folder: np.savez(folder / "a.npz", a=np.zeros(LARGE)),
    "torch": lambda folder: torch.save(torch.zeros(LARGE), folder / "a.pt"),
    "many files": lambda folder: [(folder / str(n)).write_bytes(bytes(4096)) for n in range(100)],
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_on_a_full_disk(full: Path, kind: str) -> None:
    def work(out: Path) -> None:
        with new_folder(out) as folder:
            WRITERS[kind](folder)

    _refused(full, work)


def test_a_file_on_a_full_disk(full: Path) -> None:
    (full / "filler").write_bytes(bytes(200 << 10))
    write_text(full / "kept", "before")

    def state(path: Path) -> None:
        with new_file(path) as temporary:
            torch.save(torch.zeros(LARGE), temporary)

    for work in (lambda path: write_text(path, "x" * LARGE), lambda path: write_json(path, "x" * LARGE), state):
        with pytest.raises(LorarecError, match=rf"cannot write to {full}/kept: "):
            work(full / "kept")
    assert (full / "kept").read_text() == "before"
    assert sorted(path.name for path in full.iterdir()) == ["filler", "kept"]


def test_artefacts_on_a_full_disk(full: Path, shop_of_many: Dataset) -> None:
    split = leave_one_out(shop_of_many, seed=0)
    for save in (shop_of_many.save, split.save, Index.build(shop_of_many).save):
        _refused(full, save)
    _refused(full, lambda path: plot_lengths(shop_of_many, path.with_suffix(".png")))


def test_adapters_on_a_full_disk(
    full: Path, tmp_path: Path, shop_of_many: Dataset, write_adapter: Callable[..., Path], tiny_backbone: Backbone
) -> None:
    pair = [write_adapter(tiny_backbone.model, tmp_path / str(seed), seed, r=64) for seed in (1, 2)]
    how: dict[str, Any] = {"method": "fixed", "weights": [0.5, 0.5], "combine": "factors"}
    _refused(full, lambda path: mix(tiny_backbone, pair, out=path, **how))
    config = TrainingConfig(r=64, samples=8, epochs=1, batch_size=4, eval_users=4, eval_steps=1)
    pairs = [(shop_of_many, leave_one_out(shop_of_many, seed=0))]
    _refused(full, lambda path: train(tiny_backbone, pairs, path, config))
    _refused(full, lambda path: save_merged(tiny_backbone, pair[0], path))


def test_a_fusion_on_a_full_disk(full: Path, shop_of_many: Dataset) -> None:
    split = leave_one_out(shop_of_many, seed=0)
    recommenders = {"ease": new_recommender("ease"), "popularity": new_recommender("popularity")}
    _refused(full, lambda path: fuse(shop_of_many, {}, recommenders, path, split=split))


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """Quotas and limits of a process fail like a full disk; errors of libraries are tested without a mount."""
    errors = {}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        for kind, write in WRITERS.items():
            try:
                with new_folder(tmp_path / "new") as folder:
                    write(folder)
            except Exception as error:
                errors[kind] = repr(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert errors.keys() == WRITERS.keys() - {"many files"}
    for error in errors.values():
        assert f"LorarecError('cannot write to {tmp_path}/new" in error
        assert "File too large" in error or "the disk may be full" in error
    assert [path.name for path in tmp_path.iterdir()] == ["new"]  # of files that are small


def test_the_command_line_on_a_full_disk(full: Path, refusal: Callable[..., str]) -> None:
    assert "No space left on device" in refusal("data", "import", "sample", "comedy", "--out", full / "new")


def test_output_that_cannot_be_written() -> None:
    """`lorarec data describe ... > /dev/full`"""
    with open("/dev/full", "w") as out:
        command = [sys.executable, "-c", "from lorarec.cli import main; main()", "--version"]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr


def test_a_database_that_is_full(full: Path) -> None:
    engine = create_engine(f"sqlite:///{full / 'new.db'}")

    def fill(_: Path) -> None:
        with disk_errors(full / "new.db", only_disk=True), engine.begin() as connection:
            connection.execute(text("create table a (b text)"))
            connection.execute(text("insert into a values (:b)"), {"b": "x" * LARGE})

    with pytest.raises(LorarecError, match=r"cannot write to .*new\.db: the disk may be full"):
        fill(full)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk")
def test_a_disk_that_is_read_only(full: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(full)], check=True)
    with pytest.raises(LorarecError, match=rf"cannot write to {full}/new: {full} is read-only"):
        load_sample("comedy").save(full / "new")
    with pytest.raises(LorarecError, match=rf"cannot write to {full}/new: Read-only file system"):
        write_text(full / "new", "")


@pytest.mark.parametrize("folder", ["file/new", "/proc/nowhere/new", "/dev/null/new"])
def test_places_where_no_folder_can_be(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LorarecError, match="cannot write to"), new_folder(tmp_path / folder):
        pytest.fail("it was begun")


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(KeyError), new_folder(tmp_path / "new"):
        raise KeyError("os error 2")
    with pytest.raises(ConnectionError), disk_errors(tmp_path, only_disk=True):
        raise ConnectionError("refused")
    assert disk_reason(ValueError("os error 2")) is None
    assert not list(tmp_path.iterdir())


def test_a_file_from_elsewhere_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(LorarecError, match=r"cannot write to .*/new: .*/missing: No such file"),
        new_folder(tmp_path / "new"),
    ):
        (tmp_path / "missing").read_text()


def test_missing_permissions_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_adapter: Any, tiny_backbone: Backbone
) -> None:
    """Root may write anywhere, so the system call is made to fail."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / ".new"))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with (
        pytest.raises(LorarecError, match=rf"cannot write to {tmp_path}: .*Permission denied"),
        new_folder(tmp_path / "new"),
    ):
        pytest.fail("it was begun")
    with pytest.raises(LorarecError, match=rf"cannot write to {tmp_path}/new: .*Permission denied"):
        write_text(tmp_path / "new", "")


@pytest.fixture(scope="module")
def shop_of_many() -> Dataset:
    """A dataset with so many items that none of its artefacts fits on the disk."""
    return load_sample("comedy")


def test_adapters_in_memory_are_saved_whole(
    tmp_path: Path, full: Path, write_adapter: Any, tiny_backbone: Backbone
) -> None:
    adapter = read_adapter(write_adapter(tiny_backbone.model, tmp_path / "one", 1, r=64))

    def save(path: Path) -> None:
        with new_folder(path) as folder:
            save_adapter(adapter, folder, "tiny", AdapterRecord())

    _refused(full, save)
