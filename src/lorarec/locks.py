"""Who writes what: locks, names for what is not finished yet, and the removal of what killed runs left.

Every lock belongs to an open file and so ends with the process, however that ends.
"""

import fcntl
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorarec.errors import LorarecError

#: How the name of what is being written ends, or of what a killed run left.
TEMPORARY = ".tmp"
#: How the name of a folder ends that is being replaced, where the disk cannot exchange two names in one step.
ASIDE = ".old"
logger = logging.getLogger(__name__)


def temporary_sibling(out: Path, is_folder: bool) -> tuple[Path, int]:
    """A new temporary sibling, and a handle that locks it until it is closed or the process ends."""
    names: dict[str, Any] = {"prefix": f".{out.name}.", "suffix": TEMPORARY, "dir": out.parent}
    while True:
        if is_folder:
            name = tempfile.mkdtemp(**names)
            try:
                handle = os.open(name, os.O_RDONLY)
            except FileNotFoundError:
                continue
        else:
            handle, name = tempfile.mkstemp(**names)
        if _lock(handle) and os.path.exists(name):  # else another process tidies it away: it was not locked yet
            return Path(name), handle
        os.close(handle)


def tidy(out: Path) -> None:
    """Remove what killed writers of a file or folder left beside it, and put back a former folder that they moved.

    What a process still writes is locked by it and stays.
    """
    out = Path(os.path.realpath(out))
    left = re.compile(rf"\.{re.escape(out.name)}\.\w{{8}}({re.escape(TEMPORARY)}|{re.escape(ASIDE)})")
    try:
        found = [entry.name for entry in os.scandir(out.parent) if left.fullmatch(entry.name)]
    except OSError:  # there is no such folder, or it cannot be read: whoever writes into it will say so
        return
    for name in sorted(found):
        _tidy_one(out.parent / name, out)


def tidy_inside(folder: Path) -> None:
    """Remove what killed writers of any file left in a folder that is written file by file."""
    for path in folder.glob(f".*.????????{TEMPORARY}"):
        _tidy_one(path, folder / path.name[1 : -len(TEMPORARY) - 9])


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


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Lock a folder that is written file by file, until the block or the process ends.

    Raises:
        LorarecError: another process has it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not _lock(handle):
            raise LorarecError(f"another run is writing to {folder}: let it end first, or choose another folder")
        yield
    finally:
        os.close(handle)


def _tidy_one(path: Path, out: Path) -> None:
    try:
        lock = os.open(path, os.O_RDONLY)
    except OSError:  # another process has removed it
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.suffix == ASIDE and not out.exists():
            path.rename(out)
            logger.warning("%s is back: an interrupted run had moved it to %s", out, path)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            logger.warning("removed %s, which an interrupted run left", path)
        else:
            path.unlink(missing_ok=True)
            logger.warning("removed %s, which an interrupted run left", path)
    except OSError:  # locked by a process that still runs, or on a disk without locks
        return
    finally:
        os.close(lock)


def _lock(handle: int) -> bool:
    """Whether this process alone has the file or folder; also where the disk knows no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
