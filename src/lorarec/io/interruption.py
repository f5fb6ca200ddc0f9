"""Interruption of blocking calls by Ctrl+C, and SIGTERM, which schedulers and containers send, treated as Ctrl+C."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Never


class Terminated(BaseException):
    """This process was asked to end by SIGTERM; unfinished files are removed on the way out, as by Ctrl+C."""


def interrupt_system_calls_on_sigint() -> None:
    """Make Ctrl+C interrupt blocking system calls of the main thread, as it does in Python by default.

    The import of polars installs a handler of SIGINT with SA_RESTART, so that the system restarts a call that waits for
    a lock, a thread or a process, and Python raises KeyboardInterrupt only after it returns. Call this function after
    the import.
    """
    if sys.platform != "win32":  # which does not interrupt system calls
        signal.siginterrupt(signal.SIGINT, True)


@contextmanager
def raising_on_sigterm() -> Iterator[None]:
    """Make the first SIGTERM raise `Terminated` in the block, in the main thread; a second one ends the process."""
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def end_by_sigterm() -> Never:
    """End this process as SIGTERM does by default, so that its parent sees the signal (143 in a shell)."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)
    raise SystemExit(128 + signal.SIGTERM)  # another thread may take the signal


def _raise(number: int, frame: FrameType | None) -> Never:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated
