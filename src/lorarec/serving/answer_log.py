"""Answers of the service, logged in Parquet files for offline evaluation."""

import hashlib
import logging
import threading
import uuid
from collections import deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from lorarec.errors import LorarecError
from lorarec.evaluation import ANSWER_SCHEMA, answer_files
from lorarec.io import locked, new_file, remove_leftovers_inside
from lorarec.serving.metrics import Metrics

#: Number of answers after which a file is written, and seconds after which one is written with fewer.
FLUSH_ROWS = 10_000
FLUSH_SECONDS = 60.0
#: Maximum number of answers that wait to be written.
CAPACITY = 50_000
#: Names in the folder: the lock of its writers, and the folder with the times at which users were deleted.
LOCK, DELETED = ".lock", "deleted"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedAnswer:
    """An answer of the service; see `lorarec.evaluation.ANSWER_SCHEMA`.

    Attributes:
        request_id: Id of the request.
        time: Time at which the request arrived.
        user_id: Id of the user, or another id that the request was assigned by; None without one.
        experiment: Name of the experiment, or None.
        variant: Name of the variant, or None.
        propensity: Probability of the variant, or None.
        shadow: Whether the answer was computed for comparison only.
        versions: Names and versions of the adapters that answered.
        item_ids: Ids of the ranked items, best first; None for titles outside of the catalogue.
        scores: Score of each item.
        probabilities: Posterior probability of each item.
        candidates: Number of candidates.
    """

    request_id: str | None
    time: datetime
    user_id: str | None
    experiment: str | None
    variant: str | None
    propensity: float | None
    shadow: bool
    versions: list[dict[str, str]]
    item_ids: list[str | None]
    scores: list[float]
    probabilities: list[float]
    candidates: int


class AnswerLog:
    """Write answers to Parquet files in a folder, in a thread of its own. Thread-safe.

    A file is written under a temporary name, flushed to the disk and renamed, so that every file is whole; if the
    process is killed, the answers since the last file are lost. Several replicas may write to one folder: names of
    files are unique, and a deletion of a user reaches the answers that others have not yet written.

    Args:
        folder: Folder of the files, which is created.
        metrics: Counters of the service.
        rows: Number of answers after which a file is written.
        seconds: Number of seconds after which a file is written with fewer answers.
        capacity: Maximum number of answers that wait to be written; further ones are dropped and counted.

    Raises:
        LorarecError: The folder cannot be written to.
    """

    def __init__(
        self,
        folder: str | Path,
        metrics: Metrics,
        rows: int = FLUSH_ROWS,
        seconds: float = FLUSH_SECONDS,
        capacity: int = CAPACITY,
    ) -> None:
        self.folder = Path(folder)
        self._metrics = metrics
        self._rows = rows
        self._seconds = seconds
        self._capacity = capacity
        self._waiting: deque[LoggedAnswer] = deque()
        self._changed = threading.Condition()
        self._closed = False
        try:
            (self.folder / DELETED).mkdir(parents=True, exist_ok=True)
            remove_leftovers_inside(self.folder)
            with locked(self.folder / LOCK):
                pass
        except OSError as error:
            raise LorarecError(f"answer_log {folder} cannot be written to: {error.strerror}") from error
        self._thread = threading.Thread(target=self._write_files, name="answer-log", daemon=True)
        self._thread.start()

    def add(self, answer: LoggedAnswer) -> None:
        """Add an answer to those that are written next, without waiting for the disk."""
        with self._changed:
            if len(self._waiting) >= self._capacity:
                self._metrics.dropped_answers.inc()
                return
            self._waiting.append(answer)
            if len(self._waiting) >= self._rows:
                self._changed.notify()

    def _write_files(self) -> None:
        is_last = False
        while not is_last:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._waiting) >= self._rows, self._seconds)
                is_last = self._closed
            try:
                self.flush()
            except (LorarecError, OSError) as error:
                logger.warning("answers cannot be written: %s", error)
                with self._changed:  # for a while, since more rows would not help
                    self._changed.wait_for(lambda: self._closed, self._seconds)

    def flush(self) -> None:
        """Write all answers that wait, in one file.

        Raises:
            LorarecError, OSError: The disk cannot be written to; the answers go on waiting.
        """
        with locked(self.folder / LOCK):
            with self._changed:
                answers = list(self._waiting)
            deleted = self._deletions()
            kept = [each for each in answers if not _is_deleted(each, deleted)]
            if kept:
                name = f"answers-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}.parquet"
                with new_file(self.folder / name) as temporary:
                    pl.DataFrame([asdict(each) for each in kept], schema=ANSWER_SCHEMA).write_parquet(temporary)
            with self._changed:
                for _ in answers:
                    self._waiting.popleft()
            self._metrics.logged_answers.inc(len(kept))

    def answers_of(self, user: str) -> pl.DataFrame:
        """Return the logged answers of a user, oldest first.

        Raises:
            LorarecError, OSError: The disk cannot be read or written.
        """
        self.flush()
        with locked(self.folder / LOCK):
            parts = [
                pl.read_parquet(file, glob=False).filter(pl.col("user_id") == user)
                for file in answer_files(self.folder)
            ]
        return pl.concat([ANSWER_SCHEMA.to_frame(), *parts]).sort("time", maintain_order=True)

    def delete(self, user: str) -> int:
        """Delete the logged answers of a user and return the number of those that had been written.

        Files that hold some are replaced. The hash of the user's id is kept with the current time, so that answers from
        before, which other replicas have not yet written, are left out.

        Raises:
            LorarecError, OSError: The disk cannot be written to; the deletion can be repeated.
        """
        count = 0
        with locked(self.folder / LOCK):
            with new_file(self.folder / DELETED / _hashed(user)) as temporary:
                temporary.write_text(datetime.now(UTC).isoformat(), encoding="utf-8")
            for file in answer_files(self.folder):
                found = int((pl.read_parquet(file, columns=["user_id"], glob=False)["user_id"] == user).sum())
                if found:
                    kept = pl.read_parquet(file, glob=False).filter(pl.col("user_id").ne_missing(user))
                    if kept.height:
                        with new_file(file) as temporary:
                            kept.write_parquet(temporary)
                    else:
                        file.unlink()
                count += found
        return count

    def close(self) -> None:
        """Write the answers that wait, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _deletions(self) -> dict[str, datetime]:
        """Return the times at which users were deleted, by the hash of their ids."""
        files = (self.folder / DELETED).glob("[0-9a-f]*")
        return {file.name: datetime.fromisoformat(file.read_text(encoding="utf-8")) for file in files}


def _hashed(user: str) -> str:
    return hashlib.sha256(user.encode()).hexdigest()


def _is_deleted(answer: LoggedAnswer, deleted: dict[str, datetime]) -> bool:
    if not deleted or answer.user_id is None:
        return False
    time = deleted.get(_hashed(answer.user_id))
    return time is not None and answer.time <= time
