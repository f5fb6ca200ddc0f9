"""Progress of long work on standard error: a bar on a terminal, otherwise a line every half minute."""

import io
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

T = TypeVar("T")
#: Seconds between two lines where standard error is not a terminal.
INTERVAL = 30.0


class Progress:
    """A context manager that shows the progress of a piece of work.

    Example:
        with Progress("Training", total=steps) as progress:
            for step in range(steps):
                progress.update(step + 1, f"loss {loss:.3f}")

    Args:
        title: The name of the work.
        total: The amount of work; None if it is unknown.
        done: The amount that was done before, such as by an interrupted run.
        enabled: Whether to show anything.
        unit: The unit of `total`, such as "MB".
    """

    def __init__(
        self, title: str, total: float | None = None, done: float = 0, enabled: bool = True, unit: str = ""
    ) -> None:
        self._title, self._total, self._enabled, self._unit = title, total, enabled, unit
        self._before = self._done = done
        self._metrics = ""
        self._bar: Bar | None = None
        self._ended = threading.Event()

    def update(self, done: float, metrics: str = "") -> None:
        """Set the total amount that is done, and metrics to show beside it, such as the loss."""
        self._done, self._metrics = done, metrics or self._metrics
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, metrics=self._metrics)

    def resume(self, done: float) -> None:
        """Set the amount that an interrupted run had done, which is left out of the estimate of the time left."""
        self._before, self._begun = done, time.monotonic()
        self.update(done)

    def advance(self, count: float = 1) -> None:
        """Add to the amount that is done."""
        self.update(self._done + count)

    def line(self) -> str:
        """Return a line for logs: the title, the amount done, the metrics, and the time left or spent."""
        seconds = time.monotonic() - self._begun
        unit = f" {self._unit}" if self._unit else ""
        if not self._total:
            counted = f"{self._done:,.0f}{unit}, " if self._done else ""
            return f"{self._title}: {counted}{self._metrics}{self._metrics and ', '}{_clock(seconds)} so far"
        parts = [f"{self._done:,.0f} of {self._total:,.0f}{unit} ({self._done / self._total:.0%})"]
        if self._metrics:
            parts.append(self._metrics)
        if (fresh := self._done - self._before) > 0:
            parts.append(f"{_clock(seconds / fresh * (self._total - self._done))} left")
        return f"{self._title}: {', '.join(parts)}"

    def __enter__(self) -> Self:
        self._begun = time.monotonic()
        if not self._enabled:
            return self
        console = Console(stderr=True)
        if console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[metrics]}", markup=False),
                console=console,
                transient=True,
            )
            self._bar.add_task(self._title, total=self._total, completed=int(self._done), metrics="")
            self._bar.start()
        else:
            threading.Thread(target=self._print_lines, name=f"progress of {self._title}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._bar is not None:
            self._bar.stop()

    def _print_lines(self) -> None:
        while not self._ended.wait(INTERVAL):
            print(self.line(), file=sys.stderr, flush=True)


def track(items: Iterable[T], title: str, enabled: bool = True) -> Iterator[T]:
    """Yield the items and show how many of them are done."""
    with Progress(title, len(items) if isinstance(items, Sized) else None, enabled=enabled) as progress:
        for item in items:
            yield item
            progress.advance()


@contextmanager
def track_reading(stream: BinaryIO, path: Path, enabled: bool = True) -> Iterator[BinaryIO]:
    """Yield a stream of the bytes of an open file, and show how many of them have been read."""
    with Progress(f"Reading {path.name}", path.stat().st_size / 1e6, enabled=enabled, unit="MB") as progress:
        yield io.BufferedReader(_Counted(stream, progress))


class _Counted(io.RawIOBase):
    def __init__(self, stream: BinaryIO, progress: Progress) -> None:
        self._stream, self._progress = stream, progress

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        self._progress.advance(len(block) / 1e6)
        return len(block)


def _clock(seconds: float) -> str:
    """Format a duration, as in 0:45, 12:30 or 3:02:10."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
