"""Processes that do the jobs of an experiment, several at a time."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from lorarec.backbone import hide_weights_progress
from lorarec.errors import LorarecError

KILLED = "its process was killed, as the system does when memory runs out"


class Workers(Protocol):
    """The protocol of objects that run functions in processes of their own.

    Attributes:
        count: Number of functions that run at a time.
        threads: Number of threads of each process.
    """

    @property
    def count(self) -> int: ...

    @property
    def threads(self) -> int: ...

    def run(self, function: Callable[..., None], *arguments: Any) -> str | None:
        """Call a function in a process of its own; return the reason if it failed.

        The function and its arguments can be pickled. Several threads may call this method at a time.
        """


@dataclass(frozen=True)
class ProcessWorkers:
    """Processes of this machine, which share the threads that torch would use.

    Attributes:
        count: Number of processes that run at a time.
    """

    count: int = 1

    @property
    def threads(self) -> int:
        """Number of threads of each process."""
        return max(1, torch.get_num_threads() // self.count)

    def run(self, function: Callable[..., None], *arguments: Any) -> str | None:
        """See `Workers`."""
        # Each call has a pool of its own, so that a process that is killed does not break the others.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                pool.submit(function, *arguments).result()
            except LorarecError as error:
                return str(error)
            except BrokenProcessPool:
                return KILLED
        return None


@contextmanager
def run_in_subprocess(threads: int) -> Iterator[None]:
    """Run the block as the only work of this process, which ends when the process that started it ends.

    Raises:
        LorarecError: The block raised an error; the message is one line.
    """
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    hide_weights_progress()
    try:
        yield
    except LorarecError:
        raise
    except Exception as error:
        raise LorarecError(f"{type(error).__name__}: {' '.join(str(error).split())}") from None


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
