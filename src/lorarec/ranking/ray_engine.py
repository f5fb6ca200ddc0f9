"""Scores a population on a Ray cluster, through Ray Data.

Ray Data restarts an actor whose process died and gives it its part again, for ever: a part may be scored twice. So the
workers write the parts themselves, each under its own name through a temporary sibling, and what travels back is the
number of users alone; a part that comes a second time replaces the same rows. Ray Data's own writers name files by
task, and a run that is started again would have no way to tell which users are done.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.data
import torch
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError, RayTaskError

from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.ranking.parts import Part
from lorarec.ranking.population import Job, Scorer


class RayEngine:
    """Scores parts on workers of the cluster that this process is connected to, see `cluster`.

    A worker loads dataset, index and backbone once. It has one GPU to itself, if the cluster has any and the job does
    not ask for the CPU, and as many threads as whole cores are there for each worker.

    Args:
        job: its paths are absolute; all workers see them.

    Raises:
        LorarecError: there is no room for so many workers.
    """

    def __init__(self, job: Job, workers: int = 1) -> None:
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = job.device != "cpu" and any(machine.get("GPU", 0) >= 1 for machine in machines)
        self._job, self._workers = job, workers
        self._cores, self._gpus = cores_each(machines, workers, gpus), int(gpus)

    def identity(self) -> dict[str, Any]:
        """See `Scorer.identity`; asked of a worker, since the model may not fit into this process."""
        with _in_one_line():
            task = ray.remote(num_cpus=self._cores, num_gpus=self._gpus)(_identity)
            found: dict[str, Any] = ray.get(task.remote(self._job))
        return found

    def run(self, parts: Sequence[Part], out: Path) -> Iterator[int]:
        """See `Engine`."""
        rows = [{"number": part.number, "users": part.users} for part in parts]
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Worker,
            batch_size=1,
            fn_constructor_args=(self._job, out.resolve(), self._cores),
            # A part is long: one that waits for a busy worker would be missed by an idle one.
            compute=ray.data.ActorPoolStrategy(size=min(self._workers, len(rows)), max_tasks_in_flight_per_actor=1),
            num_cpus=self._cores,
            num_gpus=self._gpus,
        )
        with _in_one_line():
            for row in done.iter_rows():
                yield row["users"]


class Worker:
    """An actor of Ray Data."""

    def __init__(self, job: Job, out: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._scorer, self._out = Scorer(job, Dataset.load(job.dataset)), out

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """Write the part in a batch of one row: its number and its users."""
        part = Part(int(batch["number"][0]), list(batch["users"][0]))
        self._scorer.write(part, self._out)
        return {"users": [len(part.users)]}


def _identity(job: Job) -> dict[str, Any]:
    return Scorer(job, Dataset.load(job.dataset)).identity()


@contextmanager
def cluster(address: str | None = None) -> Iterator[None]:
    """Connect to a Ray cluster and leave it in the end; nothing is done where this process is connected already.

    Args:
        address: as of `ray.init`; None starts a cluster on this machine, which ends with the block.

    Raises:
        LorarecError: there is no cluster at the address, or none can be started.
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
        raise LorarecError(f"no Ray cluster can be used at --address {address or 'local'}: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def cores_each(machines: Sequence[dict[str, float]], workers: int, gpus: bool) -> int:
    """The most whole cores that each of so many workers can have, none spread over machines.

    Args:
        machines: of each, its resources `CPU` and `GPU`.
        gpus: each worker needs a GPU too.

    Raises:
        LorarecError: they do not fit with one core each.
    """

    def room(cores: int) -> int:
        return sum(
            min(int(machine.get("CPU", 0)) // cores, int(machine.get("GPU", 0)) if gpus else workers)
            for machine in machines
        )

    most = max((int(machine.get("CPU", 0)) for machine in machines), default=0)
    found = max((cores for cores in range(1, most + 1) if room(cores) >= workers), default=0)
    if not found:
        each = "a GPU and a core" if gpus else "a core"
        raise LorarecError(f"--workers {workers}: the cluster has room for {room(1)} with {each} each: ask for fewer")
    return found


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Quiet Ray Data, whose errors become one line."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.raise_original_map_exception = True
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, LorarecError):
            raise LorarecError(str(error.cause)) from None
        raise
    except ExecutionTimeoutError as error:
        raise LorarecError(
            "no worker has finished a part for half an hour: give workers more memory, or make parts smaller "
            "(--part-size); the parts that are done are kept"
        ) from error
    except RayError as error:
        raise LorarecError(
            f"the Ray cluster failed ({str(error).splitlines()[0]}): run again to go on with the parts that are missing"
        ) from error
