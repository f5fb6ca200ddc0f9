"""Where pieces of work are done: several side by side, each in a process of its own."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Protocol

import torch

from lorarec.errors import LorarecError

KILLED = "its process was killed, as the system does when memory runs out"


class Workers(Protocol):
    """What does pieces of work.

    Attributes:
        count: so many at a time.
        threads: of each.
    """

    @property
    def count(self) -> int: ...

    @property
    def threads(self) -> int: ...

    def do(self, work: Callable[..., None], *given: Any) -> str | None:
        """Call `work` with what is given, both of which can be pickled; why it failed, if it did.

        Called from several threads.
        """


@dataclass(frozen=True)
class ProcessWorkers:
    """Processes of this machine, which share the threads that torch would use."""

    count: int = 1

    @property
    def threads(self) -> int:
        """See `Workers`."""
        return max(1, torch.get_num_threads() // self.count)

    def do(self, work: Callable[..., None], *given: Any) -> str | None:
        """See `Workers`."""
        # A pool for each, so that one that is killed takes no other along.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                pool.submit(work, *given).result()
            except LorarecError as error:
                return str(error)
            except BrokenProcessPool:
                return KILLED
        return None
