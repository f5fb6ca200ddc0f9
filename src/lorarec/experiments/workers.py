"""Processes that do the jobs of an experiment, several at a time."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch
from rich.console import Console

from lorarec.backbone import hide_weights_progress
from lorarec.errors import LorarecError
from lorarec.io import Progress, Terminated, interrupt_system_calls_on_sigint, raising_on_sigterm

#: Seconds that a process gets to remove its unfinished files before it is killed.
STOP_SECONDS = 10.0
STOPPED = "it was stopped"
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

    def stop(self) -> None:
        """End what is running, whose `run` returns a reason; nothing can be run any more."""


class ProcessWorkers:
    """Processes of this machine, which share the threads that torch would use.

    Args:
        count: Number of processes that run at a time.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._running: set[BaseProcess] = set()
        self._lock = threading.Lock()
        self._is_stopped = False

    @property
    def threads(self) -> int:
        """Number of threads of each process."""
        return max(1, torch.get_num_threads() // self.count)

    def run(self, function: Callable[..., None], *arguments: Any) -> str | None:
        """See `Workers`."""
        interrupt_system_calls_on_sigint()
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_call, args=(sender, function, arguments))
        with self._lock:
            if self._is_stopped:
                return STOPPED
            with _sigint_blocked():
                process.start()
            self._running.add(process)
        sender.close()  # so that the end of the process closes the pipe
        try:
            reason: str | None = receiver.recv()
        except EOFError:
            reason = STOPPED if self._is_stopped else KILLED
        receiver.close()
        process.join()
        self._running.discard(process)
        return reason

    def stop(self) -> None:
        """See `Workers`."""
        with self._lock:
            self._is_stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in running:
            process.join(max(0, deadline - time.monotonic()))
            process.kill()


def _call(sender: Connection, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Call a function in a process of its own and send the reason if it failed, otherwise None."""
    try:
        with raising_on_sigterm():
            function(*arguments)
    except LorarecError as error:
        sender.send(str(error))
    except Terminated:
        return
    else:
        sender.send(None)


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block SIGINT in this thread, and so in a process that it starts, which `ProcessWorkers.stop` ends in its place.

    A terminal sends Ctrl+C to the processes of the rows as well, which would print a traceback each.
    """
    if sys.platform == "win32":  # which has no signal masks
        yield
        return
    resource_tracker.ensure_running()  # its start would unblock SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_rows(
    workers: Workers,
    function: Callable[..., None],
    rows: Mapping[str, Sequence[Any]],
    finish: Callable[[str, str | None], str],
    console: Console,
    progress: bool,
) -> dict[str, str]:
    """Fit the rows of a table, several at a time; an interruption ends those that are being fitted.

    Args:
        workers: Place where rows are fitted.
        function: Function that fits a row. Its arguments are those of the row, the number of threads and `progress`.
        rows: Arguments of the function by name of the row.
        finish: Called in this thread when a row has ended, with its name and the reason if it failed; returns the text
            of its line on the console.
        console: Console that gets a line about each row.
        progress: Show the progress of each row in place of the number of rows that are done.

    Returns:
        The reasons of the rows that failed, in the order of `rows`.
    """
    interrupt_system_calls_on_sigint()
    failed: dict[str, str] = {}
    pool = ThreadPoolExecutor(workers.count)
    try:
        running = {
            pool.submit(workers.run, function, *arguments, workers.threads, progress): name
            for name, arguments in rows.items()
        }
        with Progress("Rows of the table", len(rows), enabled=not (progress or console.quiet)) as bar:
            for count, future in enumerate(as_completed(running), 1):
                name, reason = running[future], future.result()
                if reason is not None:
                    failed[name] = reason
                console.print(f"[{count}/{len(rows)}] {name}: {finish(name, reason)}", markup=False)
                bar.advance()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        workers.stop()
        raise
    finally:
        pool.shutdown()
    return {name: failed[name] for name in rows if name in failed}


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
