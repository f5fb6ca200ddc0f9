"""Connection to a Ray cluster, and the share of its cores that each worker gets."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ray

from lorarec.errors import LorarecError


@contextmanager
def cluster(address: str | None = None) -> Iterator[None]:
    """Connect to a Ray cluster within the block, unless this process is connected already.

    Args:
        address: Address of the cluster as for `ray.init`; None starts one on this machine, which ends with the block.

    Raises:
        LorarecError: There is no cluster at the address, or none can be started.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        ray.init(
            address or "local",
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            include_dashboard=None if address else False,
        )
    except Exception as error:  # a bare one, where Ray's processes do not come up in time
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise LorarecError(f"no Ray cluster can be used at address={address or 'local'}: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def share_each(workers: int, use_gpus: bool = True) -> tuple[int, int]:
    """Return the numbers of cores and of GPUs for each worker on the connected cluster.

    Args:
        workers: Number of workers.
        use_gpus: Whether every worker gets a GPU if the cluster has any.

    Raises:
        LorarecError: The cluster has too few cores or GPUs.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = use_gpus and any(machine.get("GPU", 0) >= 1 for machine in machines)
    return cores_each(machines, workers, gpus), int(gpus)


def cores_each(machines: Sequence[dict[str, float]], workers: int, gpus: bool) -> int:
    """Return the largest number of cores that every worker can have on one machine.

    Args:
        machines: The resources `CPU` and `GPU` of each machine.
        workers: Number of workers.
        gpus: Whether every worker needs a GPU as well.

    Raises:
        LorarecError: The workers do not fit with one core each.
    """

    def room(cores: int) -> int:
        return sum(
            min(int(machine.get("CPU", 0)) // cores, int(machine.get("GPU", 0)) if gpus else workers)
            for machine in machines
        )

    most = max((int(machine.get("CPU", 0)) for machine in machines), default=0)
    cores_of_worker = max((cores for cores in range(1, most + 1) if room(cores) >= workers), default=0)
    if not cores_of_worker:
        each = "a GPU and a core" if gpus else "a core"
        raise LorarecError(f"workers={workers}: the cluster has room for {room(1)} with {each} each: ask for fewer")
    return cores_of_worker
