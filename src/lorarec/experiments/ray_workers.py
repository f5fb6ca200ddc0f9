"""Pieces of work as tasks of a Ray cluster."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from lorarec.errors import LorarecError
from lorarec.experiments.workers import KILLED
from lorarec.io import share_each


class RayWorkers:
    """`Workers` on the cluster that this process is connected to (`lorarec.io.ray_cluster`).

    All machines see the same paths: the data, the backbone and the folder of the experiment. There are no bars.

    Args:
        count: tasks at a time; each gets as many whole cores as are there for each, and a GPU if there are any.

    Raises:
        LorarecError: there is no room for so many.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.threads, gpus = share_each(count)
        # A process is used once: memory is measured as its peak.
        self._task = ray.remote(num_cpus=self.threads, num_gpus=gpus, max_calls=1, max_retries=0)(_do)

    def do(self, work: Callable[..., None], *given: Any) -> str | None:
        """See `Workers`."""
        try:
            ray.get(self._task.remote(Path.cwd(), work, given))
        except RayTaskError as error:
            if isinstance(error.cause, LorarecError):
                return str(error.cause)
            raise
        except (WorkerCrashedError, OutOfMemoryError):
            return KILLED
        except RayError as error:
            return f"the Ray cluster failed ({str(error).splitlines()[0]}): run again to go on"
        return None


def _do(folder: Path, work: Callable[..., None], given: tuple[Any, ...]) -> None:
    # Paths of a recipe are relative to where the command was started.
    os.chdir(folder)
    work(*given)
