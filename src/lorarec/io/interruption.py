"""Interruption by SIGTERM, which schedulers and containers send, treated as that by Ctrl+C."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Never


class Terminated(BaseException):
    """This process was asked to end by SIGTERM; unfinished files are removed on the way out, as by Ctrl+C."""


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
