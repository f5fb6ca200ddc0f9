"""Operations of the disk: one-line errors, exchanging two names, flushing, and permissions."""

import ctypes
import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lorarec.errors import LorarecError
from lorarec.io.locks import TEMPORARY

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
#: Error messages of torch, C++ streams and SQLite, which do not give the reason.
_UNWRITABLE_PHRASES = ("PytorchStreamWriter failed", "iostream error", "unexpected pos", "database or disk is full")


@contextmanager
def disk_errors(path: Path, temporary: Path | None = None, only_disk: bool = False) -> Iterator[None]:
    """Turn errors of writing into one line that names the path.

    Args:
        path: The file or folder that is written.
        temporary: The name that it has until it is complete.
        only_disk: Do not change other errors of the operating system, such as those of a network.

    Raises:
        LorarecError: Instead of any `OSError` and of the errors that libraries raise if the disk cannot be written to.
    """
    try:
        yield
    except LorarecError as error:
        if temporary is None or str(temporary) not in str(error):
            raise
        raise LorarecError(str(error).replace(str(temporary), str(path))) from error
    except Exception as error:
        reason = disk_reason(error)
        if reason is None and (only_disk or not isinstance(error, OSError)):
            raise
        name = getattr(error, "filename", None)
        about = reason or getattr(error, "strerror", None) or error
        if isinstance(name, str) and temporary is not None and Path(name).is_relative_to(temporary):
            path /= Path(name).relative_to(temporary)
        elif isinstance(name, str) and Path(name) != path and Path(name).suffix != TEMPORARY:
            about = f"{name}: {about}"
        raise LorarecError(f"cannot write to {path}: {about}") from error


def disk_reason(error: BaseException) -> str | None:
    """Return why the disk cannot be written to (full, over quota, read-only) if that caused an error, otherwise None.

    Besides `OSError`, this recognises the errors of safetensors, polars, torch and SQLite.
    """
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno in _UNWRITABLE else None
    if (number := re.search(r"os error (\d+)", text)) is not None and int(number[1]) in _UNWRITABLE:
        return os.strerror(int(number[1]))
    if any(phrase in text for phrase in _UNWRITABLE_PHRASES):
        return "the disk may be full"
    return None


def exchange(first: Path, second: Path) -> bool:
    """Exchange two paths atomically, which Linux supports on most file systems; return whether that succeeded."""
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # an older C library
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0)


def sync_folder(folder: Path) -> None:
    """Flush a folder and everything in it to the disk."""
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            sync(path)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk; Windows can flush only files."""
    if sys.platform == "win32" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def set_permissions(paths: Iterable[Path]) -> None:
    """Give files and folders the permissions that new ones have by the user's umask."""
    umask = _umask()
    for path in paths:
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def _umask() -> int:
    """Return the user's umask; `os.umask` would change it, for a moment, for all threads."""
    try:
        found = re.search(r"^Umask:\s*(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:  # not Linux
        found = None
    return int(found[1], 8) if found else 0o022
