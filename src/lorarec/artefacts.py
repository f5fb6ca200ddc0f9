"""Artefacts on disk: written whole or not at all, identified by content, and what made them."""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorarec.errors import LorarecError

#: Packages that decide what comes out.
PACKAGES = ("lorarec", "torch", "transformers", "peft", "accelerate")
#: How the name of a file ends that is being written, or whose writer was killed.
TEMPORARY = ".tmp"


def refuse_existing(out: str | Path, overwrite: bool = False) -> None:
    """Refuse to write where something is, before the long work that `new_folder` would refuse to keep.

    Raises:
        LorarecError: `out` is a file or a folder that is not empty, and is not to be replaced.
    """
    out = Path(out)
    if out.exists() and not overwrite and (not out.is_dir() or any(out.iterdir())):
        raise LorarecError(f"{out} exists already: choose another --out or pass --overwrite")


@contextmanager
def new_folder(out: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of `out` that becomes `out` when the block ends without an error.

    Args:
        out: the folder to make. Its parents are created.
        overwrite: replace an existing folder; without it an existing, non-empty `out` is an error.

    Raises:
        LorarecError: `out` exists, or its disk cannot be written to.
    """
    out = Path(out)
    refuse_existing(out, overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise LorarecError(f"cannot write to {out.parent}: {error.strerror}") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    except OSError as error:
        raise LorarecError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that becomes `path` when the block ends without an error.

    Of several writers of one path each has a sibling of its own, and the last one's file stays.

    Raises:
        LorarecError: the disk cannot be written to.
    """
    path = Path(path)
    temporary = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        temporary.rename(path)
    except OSError as error:
        raise LorarecError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path, wait: bool = True) -> Iterator[bool]:
    """Yield whether this process alone has a lock, which ends with the block or the process.

    Args:
        path: a file that stands for the lock; it is made with its folder, and stays.
        wait: for another process to end; without it the answer is no when one has the lock.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


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
        LorarecError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LorarecError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise LorarecError(f"{path} is not readable JSON: {error}") from error


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
