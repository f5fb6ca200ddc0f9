"""Memory that a process may use: that of the machine, restricted by control groups of Linux."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lorarec.io import available_memory, memory, total_memory

GIB = 2**30


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder in place of / on a machine with 16 GiB, of which 10 GiB are available."""
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    machine = SimpleNamespace(total=16 * GIB, available=10 * GIB)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: machine)
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def group(folder: str, limit: str, used: int, cache: int) -> dict[str, str]:
    """Files of a control group of version 2."""
    return {
        f"sys/fs/cgroup/{folder}memory.max": f"{limit}\n",
        f"sys/fs/cgroup/{folder}memory.current": f"{used}\n",
        f"sys/fs/cgroup/{folder}memory.stat": f"anon {used - cache}\ninactive_file {cache}\n",
    }


def group_v1(folder: str, limit: int, used: int, cache: int) -> dict[str, str]:
    """Files of a control group of version 1."""
    return {
        f"sys/fs/cgroup/memory/{folder}memory.limit_in_bytes": f"{limit}\n",
        f"sys/fs/cgroup/memory/{folder}memory.usage_in_bytes": f"{used}\n",
        f"sys/fs/cgroup/memory/{folder}memory.stat": f"cache {cache}\ntotal_inactive_file {cache}\n",
    }


V1 = "12:memory:{}\n11:cpu,cpuacct:/\n1:name=systemd:/\n"


@pytest.mark.parametrize(
    ("files", "total", "available"),
    [
        pytest.param({}, 16, 10, id="not Linux"),
        pytest.param({"proc/self/cgroup": "0::/\n"}, 16, 10, id="no limits"),
        pytest.param({"proc/self/cgroup": "0::/\n", **group("", "max", 5 * GIB, 0)}, 16, 10, id="v2, max"),
        pytest.param({"proc/self/cgroup": "0::/\n", **group("", str(4 * GIB), 3 * GIB, GIB)}, 4, 2, id="v2"),
        pytest.param({"proc/self/cgroup": "0::/\n", **group("", str(4 * GIB), 5 * GIB, 0)}, 4, 0, id="v2, full"),
        pytest.param({"proc/self/cgroup": "0::/\n", **group("", str(99 * GIB), 0, 0)}, 16, 10, id="v2, above"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/jobs/one\n",
                **group("jobs/", str(3 * GIB), 2 * GIB, 0),
                **group("jobs/one/", str(8 * GIB), GIB, 0),
            },
            3,
            1,
            id="v2, of the parent",
        ),
        pytest.param({"proc/self/cgroup": V1.format("/"), **group_v1("", 2**63 - 4096, 5, 0)}, 16, 10, id="v1, none"),
        pytest.param(
            {"proc/self/cgroup": V1.format("/job"), **group_v1("job/", 6 * GIB, 3 * GIB, 2 * GIB)}, 6, 5, id="v1"
        ),
        pytest.param(
            {"proc/self/cgroup": V1.format("/docker/0123ab"), **group_v1("", 6 * GIB, 3 * GIB, 0)},
            6,
            3,
            id="v1, path of the host",
        ),
        pytest.param(
            {"proc/self/cgroup": V1.format("/job") + "0::/job\n", **group_v1("job/", 6 * GIB, GIB, 0)},
            6,
            5,
            id="v1 beside v2",
        ),
        pytest.param({"proc/self/cgroup": "0::/../..\n", **group("", str(4 * GIB), 0, 0)}, 4, 4, id="v2, outside"),
    ],
)
def test_the_least_limit_counts(root: Path, files: dict[str, str], total: int, available: int) -> None:
    write(root, files)
    assert (total_memory() / GIB, available_memory() / GIB) == (total, available)


def test_this_machine() -> None:
    assert 0 <= available_memory() <= total_memory()
