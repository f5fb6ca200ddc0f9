"""Cases of requests: their histories, given or stored, and their candidates."""

from collections.abc import Sequence
from dataclasses import replace

from lorarec.serving.adapter_registry import AdapterRegistry
from lorarec.serving.errors import ApiError, FaultCollector
from lorarec.serving.request_prompts import RequestCase, RequestPrompts
from lorarec.serving.schemas import ExplainRequest, Item, RankRequest, RecommendRequest
from lorarec.serving.stored_users import StoredUsers

#: Maximum number of latest items that are read of a stored history; prompts show fewer, but recommendations leave out
#: all of them.
MAX_STORED_HISTORY = 10_000


class RequestCases:
    """Read the cases of requests, and check what they name.

    Args:
        prompts: Catalogue that items are looked up in.
        users: Stored histories.
        adapters: Registry of the adapters.
        has_fusion: Whether a fusion answers requests that name no adapter.
    """

    def __init__(
        self,
        prompts: RequestPrompts,
        users: StoredUsers,
        adapters: AdapterRegistry,
        has_fusion: bool,
    ) -> None:
        self._prompts = prompts
        self._users = users
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
                stored = await self._users.history(request.user_id, MAX_STORED_HISTORY)
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
