"""Artefacts on disk: written whole or not at all, identified by content, and what made them."""

import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorarec.disk import disk_errors, exchange, sync, sync_folder
from lorarec.errors import LorarecError
from lorarec.folder_kinds import FolderKind
from lorarec.locks import ASIDE, only_writer, temporary_sibling, tidy

#: Packages that decide what comes out.
PACKAGES = ("lorarec", "torch", "transformers", "peft", "accelerate")


def refuse_existing(out: str | Path, overwrite: bool = False, kind: FolderKind | None = None) -> None:
    """Refuse to write where something is, before the long work that `new_folder` would refuse to keep.

    Args:
        kind: of the folder that may be overwritten.

    Raises:
        LorarecError: `out` is a file, or a folder that is not empty and is not to be replaced, is of another kind or
            holds files that lorarec does not write.
    """
    out = Path(out)
    tidy(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise LorarecError(f"{out} exists already: choose another --out or pass --overwrite")
    if kind is None or not out.is_dir() or not (out / kind.marker).is_file():
        what = f"no {kind.name} folder of lorarec's (it has no {kind.marker})" if kind else "not lorarec's"
        raise LorarecError(f"{out} is {what} and is not overwritten: choose another --out, or remove it yourself")
    if (foreign := kind.foreign_file(out)) is not None:
        raise LorarecError(
            f"{out} holds {foreign}, which lorarec did not write, and is not overwritten: move that file away, or "
            "choose another --out"
        )


@contextmanager
def new_folder(out: str | Path, overwrite: bool = False, kind: FolderKind | None = None) -> Iterator[Path]:
    """Yield a temporary sibling of `out` that becomes `out` when the block ends without an error.

    The former folder stays until the new one is whole and on the disk; then the two change places in one step. Text and
    JSON files that name the temporary folder name `out` in the end. What killed runs left beside `out` is removed.

    Args:
        out: the folder to make. Its parents are created; of a symbolic link the folder that it leads to is made.
        overwrite: replace an existing folder of this kind; without it an existing, non-empty `out` is an error, even
            one that appears while the block runs.
        kind: of the folder; needed to overwrite.

    Raises:
        LorarecError: `out` exists and is not to be replaced (see `refuse_existing`), or the disk cannot be written to.
    """
    out = Path(out)
    refuse_existing(out, overwrite, kind)
    place = Path(os.path.realpath(out))
    with disk_errors(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary, lock = temporary_sibling(place, is_folder=True)
    try:
        with disk_errors(out, temporary):
            yield temporary
            _rename_in_texts(temporary, out)
            temporary.chmod(0o755)
            replace_folder(temporary, out, kind if overwrite else None)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that becomes `path` when the block ends without an error.

    Of several writers of one path each has a sibling of its own, and the last one's file stays. What killed runs left
    of the same file is removed.

    Raises:
        LorarecError: the disk cannot be written to.
    """
    path = Path(path)
    temporary = lock = None
    try:
        with disk_errors(path):
            tidy(path)
            temporary, lock = temporary_sibling(path, is_folder=False)
        with disk_errors(path, temporary):
            yield temporary
            temporary.chmod(0o644)
            sync(temporary)
            temporary.rename(path)
            sync(path.parent)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def replace_folder(made: Path, out: Path, kind: FolderKind | None = None) -> None:
    """Rename a folder that is whole to `out`, once it is on the disk, and remove the former `out`.

    The rename itself refuses a folder that is not empty, so what appears at the last moment is safe as well. A former
    folder that may be replaced changes places with the new one in one step, or, where the disk cannot do that, is moved
    aside first, and put back by the next run after a kill in between.

    Args:
        made: beside `out`, on the same disk.
        kind: of the folder that may be overwritten.

    Raises:
        LorarecError: `out` exists and is not to be replaced.
        OSError: the disk cannot be written to.
    """
    place = Path(os.path.realpath(out))
    sync_folder(made)
    try:
        made.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        if kind is None:
            told = f"{out} appeared while it was being made: choose another --out or pass --overwrite"
            raise LorarecError(told) from None
        refuse_existing(out, True, kind)
        _change_places(made, place)
    sync(place.parent)


def _change_places(made: Path, place: Path) -> None:
    former, lock = temporary_sibling(place, is_folder=True)
    os.close(lock)
    if exchange(made, place):
        made.rename(former)
    else:
        shutil.rmtree(former, ignore_errors=True)
        former = former.with_suffix(ASIDE)
        with only_writer(place):  # so that no other process puts it back meanwhile
            place.rename(former)
            try:
                made.rename(place)
            except OSError:
                former.rename(place)
                raise
    shutil.rmtree(former, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that a kill in the middle leaves no half of it under its name."""
    tidy(folder)
    aside, lock = temporary_sibling(folder, is_folder=True)
    try:
        folder.rename(aside)
    except FileNotFoundError:
        aside.rmdir()
    else:
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        os.close(lock)


def _rename_in_texts(temporary: Path, out: Path) -> None:
    old, new = str(temporary), str(out)
    pairs = {written(old): written(new) for written in (str, _in_json, _in_markdown)}
    for path in temporary.rglob("*"):
        if path.suffix not in (".json", ".md"):
            continue
        before = text = path.read_text(encoding="utf-8")
        for one, other in pairs.items():
            text = text.replace(one, other)
        if text != before:
            path.write_text(text, encoding="utf-8")


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _in_markdown(text: str) -> str:
    return re.sub(r"([|*_])", r"\\\1", text)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text through a temporary sibling, so that a reader never sees half of it.

    Raises:
        LorarecError: the disk cannot be written to.
    """
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        LorarecError: the file is missing, is not JSON, or is nested too deep.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LorarecError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise LorarecError(f"{path} is not readable JSON: {error}") from error
    except RecursionError:
        raise LorarecError(f"{path} is not readable JSON: it is nested too deep") from None


def file_fingerprint(*paths: str | Path) -> str:
    """SHA-256 over the contents of the files in the order given, as the first 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the figures; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # lorarec run from a source tree
            continue
    return found
