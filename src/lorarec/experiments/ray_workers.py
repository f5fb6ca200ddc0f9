"""Jobs of an experiment as tasks of a Ray cluster."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, TaskCancelledError, WorkerCrashedError

from lorarec.errors import LorarecError
from lorarec.experiments.workers import KILLED, STOPPED
from lorarec.io import share_each


class RayWorkers:
    """`Workers` on the cluster that this process is connected to (`lorarec.io.ray_cluster`).

    All machines must see the same paths: the data, the backbone and the folder of the experiment. Tasks show no bars.

    Args:
        count: Number of tasks that run at a time; they share the cores of the cluster evenly, and each has a GPU if
            there are any.

    Raises:
        LorarecError: The cluster has too few cores or GPUs for so many tasks.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._running: set[Any] = set()
        self._lock = threading.Lock()
        self._is_stopped = False
        self.threads, gpus = share_each(count)
        # A process runs one task, because its peak memory is measured.
        self._task = ray.remote(num_cpus=self.threads, num_gpus=gpus, max_calls=1, max_retries=0)(_run)

    def run(self, function: Callable[..., None], *arguments: Any) -> str | None:
        """See `Workers`."""
        with self._lock:
            if self._is_stopped:
                return STOPPED
            task = self._task.remote(Path.cwd(), function, arguments)
            self._running.add(task)
        try:
            ray.get(task)
        except RayTaskError as error:
            if isinstance(error.cause, LorarecError):
                return str(error.cause)
            raise
        except TaskCancelledError:
            return STOPPED
        except (WorkerCrashedError, OutOfMemoryError):
            return STOPPED if self._is_stopped else KILLED
        except RayError as error:
            return f"the Ray cluster failed ({str(error).splitlines()[0]}): run again to continue"
        finally:
            self._running.discard(task)
        return None

    def stop(self) -> None:
        """See `Workers`."""
        with self._lock:
            self._is_stopped = True
            running = list(self._running)
        for task in running:
            ray.cancel(task, force=True)


def _run(folder: Path, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # Paths of a recipe are relative to the folder where the experiment was started.
    os.chdir(folder)
    function(*arguments)
