"""Memory of this machine that this process may use, which the limit of a container may restrict."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Folder in which the file systems of Linux are mounted.
ROOT = Path("/")


@dataclass(frozen=True)
class _CgroupFiles:
    """Names of the files of a control group of Linux.

    Attributes:
        folder: Folder of the outermost control group.
        limit: File of the limit in bytes.
        usage: File of the usage in bytes, with the page cache.
        cache: Field of `memory.stat` with the bytes of the page cache that are freed when memory is needed.
    """

    folder: str
    limit: str
    usage: str
    cache: str


_V1 = _CgroupFiles("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _CgroupFiles("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def available_memory() -> int:
    """Return the number of bytes that this process can still use without swapping.

    It is the least of the machine's available memory and of what the limits of the process's control groups (versions 1
    and 2), such as that of its container, leave.
    """
    return min([psutil.virtual_memory().available, *(max(0, limit - used) for limit, used in _cgroup_limits())])


def total_memory() -> int:
    """Return the number of bytes of the machine's memory, or of the process's control groups if their limit is less."""
    return min([psutil.virtual_memory().total, *(limit for limit, _ in _cgroup_limits())])


def _cgroup_limits() -> Iterator[tuple[int, int]]:
    """Yield the limit and the usage in bytes of each control group of this process that has a limit."""
    try:
        lines = (ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        files = _V1 if controllers else _V2
        outermost = ROOT / files.folder
        # In a container without a namespace of its own the path is that of the host: only the outermost folder exists.
        innermost = outermost / path.lstrip("/")
        for folder in (innermost, *innermost.parents):
            if folder.is_relative_to(outermost) and (found := _limit_and_usage(folder, files)):
                yield found


def _limit_and_usage(folder: Path, files: _CgroupFiles) -> tuple[int, int] | None:
    try:
        # Without a limit, version 2 has the word "max" and version 1 a number above any memory.
        limit, usage = int((folder / files.limit).read_text()), int((folder / files.usage).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return limit, max(0, usage - int(statistics.get(files.cache, 0)))
    except (OSError, ValueError):
        return None
