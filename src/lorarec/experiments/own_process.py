"""A piece of work in a process of its own, which takes no other along."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import torch

from lorarec.errors import LorarecError

KILLED = "its process was killed, as the system does when memory runs out"


def in_own_process(work: Callable[..., None], *given: Any) -> str | None:
    """Call `work` with what is given, both of which can be pickled; why it failed, if it did."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            pool.submit(work, *given).result()
        except LorarecError as error:
            return str(error)
        except BrokenProcessPool:
            return KILLED
    return None


@contextmanager
def alone(threads: int) -> Iterator[None]:
    """The block is all that this process is for, which ends when the one that started it does.

    Raises:
        LorarecError: whatever goes wrong in the block, in one line.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        yield
    except LorarecError:
        raise
    except Exception as error:
        raise LorarecError(f"{type(error).__name__}: {' '.join(str(error).split())}") from None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
