"""Cases of requests: their histories, given or stored, and their candidates."""

from collections.abc import Sequence
from dataclasses import replace

from lorarec.personal import UserHistory
from lorarec.serving.adapter_registry import AdapterRegistry
from lorarec.serving.errors import ApiError, Fault, FaultCollector
from lorarec.serving.request_prompts import TITLE_PREFIX, RequestCase, RequestPrompts
from lorarec.serving.schemas import ExplainRequest, InHistory, Item, RankRequest, RecommendRequest
from lorarec.serving.stored_users import StoredUsers

#: Maximum number of latest items that are read of a stored history; prompts show fewer, but recommendations leave out
#: all of them.
MAX_STORED_HISTORY = 10_000
#: User of a history that a request gives: no user of a dataset, since stored ids cannot hold this character.
UNKNOWN_USER = TITLE_PREFIX


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
                items = self._prompts.case_items(request.history, "history")
                given = _given_history(items, _times(request.history))
                case = replace(case, history=given.items if given else items, user_history=given)
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


def _times(history: Sequence[InHistory]) -> list[int]:
    """Return the timestamps of a history; empty if it has none.

    Raises:
        ApiError: 422, with all items that have no timestamp if others have one.
    """
    times = [None if isinstance(item, str) else item.timestamp for item in history]
    given = [time for time in times if time is not None]
    if given and len(given) < len(times):
        message = "the item has no timestamp, but others have one: give all items of the history one, or none"
        raise ApiError(
            422, faults=[Fault(message, f"history.{index}") for index, time in enumerate(times) if time is None]
        )
    return given


def _given_history(items: Sequence[str], times: Sequence[int]) -> UserHistory | None:
    """Return a history with times in their order, or None without times.

    Items of the same time stay in the order of the request, as stored events do.
    """
    if not times:
        return None
    order = sorted(range(len(times)), key=times.__getitem__)
    return UserHistory(UNKNOWN_USER, [items[place] for place in order], [times[place] for place in order])
