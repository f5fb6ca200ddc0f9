"""Cases of requests: their histories, given or stored, and their candidates."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from lorarec.personal import UserHistory
from lorarec.serving.adapter_registry import AdapterRegistry
from lorarec.serving.database import DatabaseCalls
from lorarec.serving.errors import ApiError, FaultCollector
from lorarec.serving.histories import Histories
from lorarec.serving.request_prompts import RequestCase, RequestPrompts
from lorarec.serving.schemas import ExplainRequest, Item, RankRequest, RecommendRequest

#: Maximum number of latest items that are read of a stored history; prompts show fewer, but recommendations leave out
#: all of them.
MAX_STORED_HISTORY = 10_000

History = TypeVar("History", list[str], UserHistory)


class RequestCases:
    """Read the cases of requests, and check what they name.

    Args:
        prompts: Catalogue that items are looked up in.
        histories: Stored histories.
        database: Calls to the database of the histories.
        adapters: Registry of the adapters.
        has_fusion: Whether a fusion answers requests that name no adapter.
    """

    def __init__(
        self,
        prompts: RequestPrompts,
        histories: Histories,
        database: DatabaseCalls,
        adapters: AdapterRegistry,
        has_fusion: bool,
    ) -> None:
        self._prompts = prompts
        self._histories = histories
        self._database = database
        self._adapters = adapters
        self._has_fusion = has_fusion

    async def read(
        self,
        request: RankRequest | RecommendRequest | ExplainRequest,
        candidates: Sequence[Item],
        faults: FaultCollector,
    ) -> RequestCase:
        """Return the case of a request.

        What is wrong with its items, its user and its adapter is collected; the case is of no use then.
        """
        case = RequestCase(None, [], [])
        with faults.collect():
            case = replace(case, candidates=self._prompts.case_items(candidates, "candidates"))
        with faults.collect():
            if request.history is not None:
                case = replace(case, history=self._prompts.case_items(request.history, "history"))
            else:
                assert request.user_id is not None
                stored = await self.read_history(self._histories.user_history, request.user_id, MAX_STORED_HISTORY)
                case = replace(case, user=request.user_id, history=stored.items, user_history=stored)
        with faults.collect():
            if request.adapter is not None or not self._has_fusion:
                self._adapters.weights(request.adapter)
        return case

    async def read_explained(self, request: ExplainRequest) -> RequestCase:
        """Return a case with the history of a request and the candidates that it gives, if it gives any.

        Raises:
            ApiError: If the index of the candidate is out of range, the history is empty or has the item, or an item is
                unknown.
        """
        given, faults = request.candidates or [], FaultCollector()
        with faults.collect():
            if given and (request.candidate or 0) >= len(given):
                raise ApiError(422, f"there are {len(given)} candidates: give an index from 0", "candidate")
        with faults.collect():
            self._prompts.check_ids({} if request.item_id is None else {"item_id": request.item_id})
        case = await self.read(request, given, faults)
        faults.refuse()
        if not case.history:
            raise ApiError(422, "an empty history explains nothing: give one item or more", "history")
        if request.item_id in case.history:
            raise ApiError(422, f"the history has item {request.item_id!r}: give one that it has not", "item_id")
        return case

    async def read_history(self, read: Callable[[str, int], History], user: str, limit: int) -> History:
        """Read at most `limit` items of a stored history.

        Raises:
            ApiError: 404, if the user has none; or as for `DatabaseCalls.run`.
        """
        history = await self._database.run(read, user, limit)
        if not history:
            raise ApiError(404, f"user {user!r} has no history: store events, or send a history", "user_id")
        return history
