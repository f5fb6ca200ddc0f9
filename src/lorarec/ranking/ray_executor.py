"""Recommendations for a population on a Ray cluster, through Ray Data.

Ray Data restarts an actor whose process died and gives it its part again, so a part may be computed twice. Therefore
the workers write the files themselves, each under its own name by renaming a temporary file, and return the number of
users only; a part that is computed again replaces the same rows. Ray Data's own writers name files by task, so that a
run that is started again could not find out which users are done.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
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
from lorarec.io import JsonObject, share_each
from lorarec.ranking.population import PopulationConfig, PopulationScorer
from lorarec.ranking.population_parts import Part


class RayExecutor:
    """Computes recommendations on workers of the cluster that this process is connected to (`lorarec.io.cluster`).

    A worker loads dataset, index and backbone once. It has a GPU of its own, if the cluster has GPUs and the config
    does not choose the CPU, and an equal share of the cores.

    Args:
        config: The data, model and options; the paths are absolute, and all workers see them.
        workers: The number of workers.

    Raises:
        LorarecError: The cluster does not have room for the workers.
    """

    def __init__(self, config: PopulationConfig, workers: int = 1) -> None:
        self._config, self._workers = config, workers
        self._cores, self._gpus = share_each(workers, use_gpus=config.backbone.device != "cpu")

    def identity(self) -> JsonObject:
        """Return `PopulationScorer.identity`, computed by a worker, since the model may not fit into this process."""
        with _one_line_errors():
            task = ray.remote(num_cpus=self._cores, num_gpus=self._gpus)(_identity)
            identity_of_run: JsonObject = ray.get(task.remote(self._config))
        return identity_of_run

    def run(self, parts: Sequence[Part], out: Path) -> Iterator[int]:
        """Write the parts into a folder; see `Executor`."""
        rows = [{"number": part.number, "users": part.users} for part in parts]
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Worker,
            batch_size=1,
            fn_constructor_args=(self._config, out.resolve(), self._cores),
            # A part takes long: none may wait for a busy worker while another worker is idle.
            compute=ray.data.ActorPoolStrategy(size=min(self._workers, len(rows)), max_tasks_in_flight_per_actor=1),
            num_cpus=self._cores,
            num_gpus=self._gpus,
        )
        with _one_line_errors():
            for row in done.iter_rows():
                yield row["users"]


class Worker:
    """An actor of Ray Data that computes parts."""

    def __init__(self, config: PopulationConfig, out: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._scorer, self._out = PopulationScorer(config, Dataset.load(config.dataset)), out

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[int]]:
        """Write the part that is the only row of a batch, with its number and its users."""
        part = Part(int(batch["number"][0]), list(batch["users"][0]))
        self._scorer.write(part, self._out)
        return {"users": [len(part.users)]}


def _identity(config: PopulationConfig) -> JsonObject:
    return PopulationScorer(config, Dataset.load(config.dataset)).identity()


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Silence Ray Data, and raise its errors as `LorarecError`s of one line."""
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
            "(part_size); the finished parts are not lost"
        ) from error
    except RayError as error:
        raise LorarecError(
            f"the Ray cluster failed ({str(error).splitlines()[0]}): run again to compute the missing parts"
        ) from error
