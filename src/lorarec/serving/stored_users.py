"""Stored histories of users, read and written without waiting for a database that does not respond."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import polars as pl

from lorarec.errors import LorarecError
from lorarec.personal import UserHistory
from lorarec.serving.answer_log import AnswerLog
from lorarec.serving.database import READ_THREADS, WRITE_THREADS, DatabaseCalls
from lorarec.serving.errors import ApiError
from lorarec.serving.histories import Event, EventConflict, Histories, StoredEvent
from lorarec.serving.metrics import Metrics
from lorarec.serving.request_prompts import RequestPrompts
from lorarec.serving.user_schemas import EventsRequest

T = TypeVar("T")

#: Beginning of the ids of events that have no id of their own in a request with an idempotency key.
IDEMPOTENCY = "idempotency-key:"

logger = logging.getLogger(__name__)


class StoredUsers:
    """Read, extend, export and delete the stored histories of users.

    Events have threads and a limit of their own: they are stored even if too many requests wait for histories.

    Args:
        histories: Histories in the database.
        prompts: Catalogue that items are looked up in. Other replicas may store interactions with items that this one
            does not know; they are left out of its histories.
        limit: Maximum number of requests that read at once, and of those that write.
        metrics: Counters of the service.
        answer_log: Log of the answers, or None.
    """

    def __init__(
        self,
        histories: Histories,
        prompts: RequestPrompts,
        limit: int,
        metrics: Metrics,
        answer_log: AnswerLog | None = None,
    ) -> None:
        self._histories = histories
        self._prompts = prompts
        self._metrics = metrics
        self._answer_log = answer_log
        self._reads = DatabaseCalls(READ_THREADS, limit, metrics)
        self._writes = DatabaseCalls(WRITE_THREADS, limit, metrics)

    async def history(self, user: str, latest: int) -> UserHistory:
        """Return at most `latest` items of a user with their times, oldest first.

        Raises:
            ApiError: 404, if the user is unknown; 429 or 503, if the database does not respond in time.
        """
        stored = await self._reads.run(self._histories.user_history, user, latest)
        is_item, pairs = self._prompts.has_item, zip(stored.items, stored.times, strict=True)
        known = [(item, time) for item, time in pairs if is_item(item)]
        if not known:
            raise _unknown(user)
        return UserHistory(user, [item for item, _ in known], [time for _, time in known])

    async def latest_items(self, user: str, limit: int) -> list[str]:
        """Return the item ids of a stored history, latest first.

        Raises:
            ApiError: As for `history`.
        """
        return [*(await self.history(user, limit)).items][::-1]

    async def store(self, request: EventsRequest, idempotency_key: str | None = None) -> int:
        """Store events, either all or none, and return the number of new ones.

        Args:
            request: Events.
            idempotency_key: Key of the request; together with its index in the request it is the id of each event that
                has no other.

        Raises:
            ApiError: 409, if an event has the id of another event of the user; 422, if an item is not in the catalogue;
                429 or 503, if the database does not respond in time.
        """
        items = {f"events.{index}.item_id": event.item_id for index, event in enumerate(request.events)}
        self._prompts.check_ids(items)
        events = [Event(**event.model_dump()) for event in request.events]
        if idempotency_key is not None:
            ids = [event.event_id or f"{IDEMPOTENCY}{idempotency_key}:{index}" for index, event in enumerate(events)]
            events = [replace(event, event_id=event_id) for event, event_id in zip(events, ids, strict=True)]
        try:
            stored = await self._writes.run(self._histories.append, events)
        except EventConflict as conflict:
            event, known = events[conflict.index], conflict.stored
            raise ApiError(
                409,
                f"the id {event.event_id!r} is that of another event of user {event.user_id!r}, with item "
                f"{known.item_id!r} at {known.timestamp}: give this event another id",
                f"events.{conflict.index}.event_id",
            ) from None
        self._metrics.events.inc(stored)
        return stored

    async def export(self, user: str, render: Callable[[list[StoredEvent], list[dict[str, Any]]], bytes]) -> bytes:
        """Return all that is stored of a user, which is rendered in a thread since it can be much.

        Args:
            user: Id of the user.
            render: Function that renders the events, and the rows of the answer log.

        Raises:
            ApiError: 404, if the user is unknown; 429 or 503, if the database or the disk does not respond in time.
        """
        events = await self._reads.run(self._histories.events, user)
        log = self._answer_log
        answers = await _of_log(lambda: log.answers_of(user).to_dicts()) if log else []
        if not events and not answers:
            raise _unknown(user)
        return await asyncio.to_thread(render, events, answers)

    async def delete(self, user: str) -> tuple[int, int]:
        """Delete all that is stored of a user and return the numbers of deleted interactions and logged answers.

        Raises:
            ApiError: 404, if the user is unknown; 429 or 503, if the database or the disk does not respond in time. The
                deletion can be repeated.
        """
        deleted = await self._writes.run(self._histories.delete, user)
        log = self._answer_log
        answers = await _of_log(lambda: log.delete(user)) if log else 0
        if not deleted and not answers:
            raise _unknown(user)
        return deleted, answers

    async def deleted(self) -> set[str]:
        """Return the users of the dataset whose interactions have been deleted and of whom none were stored since.

        Raises:
            ApiError: 429 or 503, if the database does not respond in time.
        """
        return await self._reads.run(self._histories.deleted)

    def close(self) -> None:
        """Start no further call; a call that hangs is not waited for."""
        self._reads.close()
        self._writes.close()


async def _of_log(call: Callable[[], T]) -> T:
    """Return the result of a call that reads or writes the files of the answer log.

    Raises:
        ApiError: 503, if the disk cannot be used.
    """
    try:
        return await asyncio.to_thread(call)
    except (LorarecError, OSError, pl.exceptions.PolarsError) as error:
        logger.warning("the answer log cannot be used: %s", error)
        raise ApiError(
            503, "the answer log cannot be used: see the log of the service, then try again", None, 60
        ) from None


def _unknown(user: str) -> ApiError:
    return ApiError(404, f"user {user!r} has no history: store events, or send a history", "user_id")
