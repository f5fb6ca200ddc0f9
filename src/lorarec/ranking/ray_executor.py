"""Scores a population on a Ray cluster, through Ray Data.

Ray Data restarts an actor whose process died and gives it its part again, for ever: a part may be scored twice. So the
workers write the parts themselves, each under its own name through a temporary sibling, and what travels back is the
number of users alone; a part that comes a second time replaces the same rows. Ray Data's own writers name files by
task, and a run that is started again would have no way to tell which users are done.
"""

import logging
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
from lorarec.io import share_each
from lorarec.ranking.population import PopulationConfig, PopulationScorer
from lorarec.ranking.population_parts import Part


class RayExecutor:
    """Scores parts on workers of the cluster that this process is connected to, see `lorarec.io.ray_cluster`.

    A worker loads dataset, index and backbone once. It has one GPU to itself, if the cluster has any and the job does
    not ask for the CPU, and as many threads as whole cores are there for each worker.

    Args:
        job: its paths are absolute; all workers see them.

    Raises:
        LorarecError: there is no room for so many workers.
    """

    def __init__(self, job: PopulationConfig, workers: int = 1) -> None:
        self._job, self._workers = job, workers
        self._cores, self._gpus = share_each(workers, use_gpus=job.device != "cpu")

    def identity(self) -> dict[str, Any]:
        """See `PopulationScorer.identity`; asked of a worker, since the model may not fit into this process."""
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

    def __init__(self, job: PopulationConfig, out: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._scorer, self._out = PopulationScorer(job, Dataset.load(job.dataset)), out

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """Write the part in a batch of one row: its number and its users."""
        part = Part(int(batch["number"][0]), list(batch["users"][0]))
        self._scorer.write(part, self._out)
        return {"users": [len(part.users)]}


def _identity(job: PopulationConfig) -> dict[str, Any]:
    return PopulationScorer(job, Dataset.load(job.dataset)).identity()


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
            "(part_size); the parts that are done are kept"
        ) from error
    except RayError as error:
        raise LorarecError(
            f"the Ray cluster failed ({str(error).splitlines()[0]}): run again to go on with the parts that are missing"
        ) from error
