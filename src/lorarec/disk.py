"""What the disk can do and what it refuses: flushing, exchanging names, errors in one line."""

import ctypes
import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorarec.errors import LorarecError
from lorarec.locks import TEMPORARY

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
#: Of torch, C++ streams and SQLite, which do not say why.
_UNWRITABLE_PHRASES = ("PytorchStreamWriter failed", "iostream error", "unexpected pos", "database or disk is full")


@contextmanager
def disk_errors(path: Path, temporary: Path | None = None, only_disk: bool = False) -> Iterator[None]:
    """Tell errors of the operating system, and what libraries make of them, in one line that names the path.

    Args:
        temporary: what `path` is called meanwhile.
        only_disk: leave other errors of the operating system, such as those of a network, as they are.

    Raises:
        LorarecError: in place of any `OSError`, and of other errors that come from a disk that cannot be written to.
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
    """What an error says of a disk that cannot be written to: full, over its quota, read-only; None for other errors.

    safetensors, polars, torch and SQLite have errors of their own in place of `OSError`.
    """
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno in _UNWRITABLE else None
    if (number := re.search(r"os error (\d+)", text)) is not None and int(number[1]) in _UNWRITABLE:
        return os.strerror(int(number[1]))
    if any(phrase in text for phrase in _UNWRITABLE_PHRASES):
        return "the disk may be full"
    return None


def exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step, which Linux can on most of its disks; whether it could."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def sync_folder(folder: Path) -> None:
    """Wait until a folder and all that is in it is on the disk."""
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            sync(path)


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
