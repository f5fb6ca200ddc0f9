"""Where jobs are done: several side by side, each in a process of its own."""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import torch

from lorarec.errors import LorarecError
from lorarec.experiments.job import Job, run_in_process
from lorarec.experiments.recipe import Recipe

KILLED = "its process was killed, as the system does when memory runs out"


class Workers(Protocol):
    """What does jobs.

    Attributes:
        count: jobs at a time.
    """

    @property
    def count(self) -> int: ...

    def do(self, recipe: Recipe, out: Path, job: Job, progress: bool) -> str | None:
        """Do a job and tell why it failed, if it did; called from several threads."""


@dataclass(frozen=True)
class Processes:
    """Processes on this machine, which share the threads that torch would use."""

    count: int = 1

    def do(self, recipe: Recipe, out: Path, job: Job, progress: bool) -> str | None:
        """See `Workers`."""
        threads = max(1, torch.get_num_threads() // self.count)
        # A pool for each job, so that one that is killed takes no other along.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                pool.submit(run_in_process, recipe, out, job, threads, progress).result()
            except LorarecError as error:
                return str(error)
            except BrokenProcessPool:
                return KILLED
        return None
