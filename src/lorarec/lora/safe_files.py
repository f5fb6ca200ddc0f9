"""Safe reading of files from untrusted folders: only regular files of bounded size are read."""

import json
import os
import reprlib
import stat
import sys
from pathlib import Path
from typing import Any

from lorarec.errors import LorarecError

#: Maximum number of bytes of a JSON file; the largest that lorarec writes, weights by layer, are far smaller.
JSON_LIMIT = 16 << 20

if sys.platform == "win32":
    _OPEN_FLAGS = os.O_RDONLY | os.O_BINARY
else:
    # Files of /proc have size 0 whatever they hold, and reading some of them blocks.
    _OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK


def require_regular(path: Path, limit: int) -> None:
    """Refuse a path that is not a regular file of at most `limit` bytes.

    The file is not opened, since a FIFO or a device may block or never end. Symbolic links are followed, since the
    cache of the hub uses them.

    Raises:
        LorarecError: If the path is missing, not a regular file or larger; the message names it.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise LorarecError(f"{path} does not exist") from None
    except OSError as error:
        raise LorarecError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise LorarecError(f"{path} is not a regular file")
    if status.st_size > limit:
        raise LorarecError(f"{path} has {status.st_size:,} bytes, more than the limit of {limit:,}")


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the contents of a regular file of at most `limit` bytes.

    Raises:
        LorarecError: If the file is missing, unreadable, not regular or larger.
    """
    require_regular(path, limit)
    try:
        with open(os.open(path, _OPEN_FLAGS), "rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise LorarecError(f"{path} cannot be read: {error.strerror}") from error
    if len(data or b"") > limit:
        raise LorarecError(f"{path} has more bytes than the limit of {limit:,}")
    return data or b""


def read_bounded_json(path: Path) -> Any:
    """Return the parsed contents of a JSON file of at most `JSON_LIMIT` bytes.

    Raises:
        LorarecError: If the file is missing, unreadable, too large, too deep or not JSON.
    """
    try:
        return json.loads(read_bounded(path, JSON_LIMIT))
    except LorarecError:
        raise
    except (ValueError, RecursionError) as error:
        raise LorarecError(f"{path} is not readable JSON ({error}): restore it, or make its folder again") from error


def quoted(value: Any) -> str:
    """Return a shortened representation of a value from a file, for an error message."""
    return reprlib.repr(value)
