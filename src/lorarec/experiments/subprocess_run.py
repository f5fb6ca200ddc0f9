"""What a process does that was started for one piece of work alone."""

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lorarec.errors import LorarecError


@contextmanager
def run_in_subprocess(threads: int) -> Iterator[None]:
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
