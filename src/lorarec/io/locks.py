"""Locks of files and folders, names of unfinished ones, and the removal of what killed processes left behind.

Every lock belongs to an open file, so it is released when the process ends, even by a kill.
"""

import hashlib
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout, lock_descriptor

from lorarec.errors import LorarecError

#: The suffix of files and folders that are being written, or were when their process was killed.
TEMPORARY = ".tmp"
#: The suffix of a folder that is being replaced, on disks that cannot exchange two names in one step.
ASIDE = ".old"
logger = logging.getLogger(__name__)


def temporary_sibling(out: Path, is_folder: bool) -> tuple[Path, int]:
    """Make a temporary file or folder beside `out`; return its path and a descriptor that locks it until closed."""
    names: dict[str, Any] = {"prefix": f".{out.name}.", "suffix": TEMPORARY, "dir": out.parent}
    while True:
        if is_folder:
            name = tempfile.mkdtemp(**names)
        else:
            created, name = tempfile.mkstemp(**names)
            os.close(created)
        try:
            handle = _open_for_lock(Path(name))
        except FileNotFoundError:  # another process removed it before it was locked
            continue
        except BaseException:  # Ctrl+C or SIGTERM
            if is_folder:
                os.rmdir(name)
            else:
                os.unlink(name)
            raise
        if _lock(handle) and os.path.exists(name):
            return Path(name), handle
        os.close(handle)


def remove_leftovers(out: Path) -> None:
    """Remove what killed writers of a file or folder left beside it, and restore the previous folder if they moved it.

    What a running process is writing is locked and stays.
    """
    out = Path(os.path.realpath(out))
    left = re.compile(rf"\.{re.escape(out.name)}\.\w{{8}}({re.escape(TEMPORARY)}|{re.escape(ASIDE)})")
    try:
        found = [entry.name for entry in os.scandir(out.parent) if left.fullmatch(entry.name)]
    except OSError:  # the folder is missing or unreadable, which writing into it will report
        return
    for name in sorted(found):
        _remove_leftover(out.parent / name, out)


def remove_leftovers_inside(folder: Path) -> None:
    """Remove what killed writers of any file left inside a folder that is written file by file."""
    for path in folder.glob(f".*.????????{TEMPORARY}"):
        _remove_leftover(path, folder / path.name[1 : -len(TEMPORARY) - 9])


@contextmanager
def locked(path: str | Path, wait: bool = True) -> Iterator[bool]:
    """Lock a file until the block or the process ends; yield whether that succeeded.

    Args:
        path: The lock file, which is created together with its folder and is not removed.
        wait: Wait until no other process has the lock; otherwise yield False if one has it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    with suppress(Timeout):
        lock.acquire(blocking=wait)
    try:
        yield lock.is_locked
    finally:
        lock.release()


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Lock a folder that is written file by file, until the block or the process ends.

    Raises:
        LorarecError: Another process has locked it.
    """
    handle = _open_for_lock(folder)
    try:
        if not _lock(handle):
            raise LorarecError(f"another run is writing to {folder}: wait until it ends, or choose another folder")
        yield
    finally:
        os.close(handle)


def _remove_leftover(path: Path, out: Path) -> None:
    try:
        lock = _open_for_lock(path)
    except OSError:  # another process has removed it
        return
    try:
        if not lock_descriptor(lock, blocking=False):  # a running process is writing it
            return
        if path.suffix == ASIDE and not out.exists():
            path.rename(out)
            logger.warning("restored %s, which an interrupted run had moved to %s", out, path)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            logger.warning("removed %s, which an interrupted run left behind", path)
        else:
            path.unlink(missing_ok=True)
            logger.warning("removed %s, which an interrupted run left behind", path)
    except OSError:  # the disk has no locks
        return
    finally:
        os.close(lock)


def _open_for_lock(path: Path) -> int:
    """Open an existing file or folder so that it can be locked; return the descriptor."""
    if sys.platform != "win32":
        return os.open(path, os.O_RDONLY)
    # Windows cannot open folders and cannot rename what is open, so an empty file elsewhere is locked in its place.
    locks = Path(tempfile.gettempdir()) / "lorarec-locks"
    locks.mkdir(exist_ok=True)
    name = hashlib.sha256(os.path.realpath(path, strict=True).encode()).hexdigest()
    return os.open(locks / name, os.O_RDWR | os.O_CREAT)


def _lock(handle: int) -> bool:
    """Lock a file or folder if possible; return whether no other process has locked it, also on disks without locks."""
    try:
        return lock_descriptor(handle, blocking=False)
    except OSError:
        return True
