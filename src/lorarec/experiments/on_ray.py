"""Jobs as tasks of a Ray cluster."""

import os
from pathlib import Path

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from lorarec.errors import LorarecError
from lorarec.experiments.job import Job, run_in_process
from lorarec.experiments.recipe import Recipe
from lorarec.experiments.workers import KILLED
from lorarec.ray_cluster import share_each


class RayTasks:
    """`Workers` on the cluster that this process is connected to (`lorarec.ray_cluster`).

    All machines see the same paths: the data, the backbone and the folder of the experiment.

    Args:
        count: jobs at a time; each gets as many whole cores as are there for each, and a GPU if there are any.

    Raises:
        LorarecError: there is no room for so many.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._cores, gpus = share_each(count)
        # A process is used once: memory is measured as its peak.
        self._task = ray.remote(num_cpus=self._cores, num_gpus=gpus, max_calls=1, max_retries=0)(_do)

    def do(self, recipe: Recipe, out: Path, job: Job, progress: bool) -> str | None:
        """See `Workers`; there are no bars."""
        try:
            ray.get(self._task.remote(Path.cwd(), recipe, out, job, self._cores))
        except RayTaskError as error:
            if isinstance(error.cause, LorarecError):
                return str(error.cause)
            raise
        except (WorkerCrashedError, OutOfMemoryError):
            return KILLED
        except RayError as error:
            return f"the Ray cluster failed ({str(error).splitlines()[0]}): run again to go on"
        return None


def _do(folder: Path, recipe: Recipe, out: Path, job: Job, threads: int) -> None:
    # Paths of a recipe are relative to where the command was started.
    os.chdir(folder)
    run_in_process(recipe, out, job, threads, progress=False)
