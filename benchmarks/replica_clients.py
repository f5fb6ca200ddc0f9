"""Clients of replicas that check every answer and stored event, for `serve_replicas.py` and `serve_chaos.py`.

Three quarters of the clients ask for rankings of users of the bundled sample, by an adapter, another one or a mixture
of both. The others store events of a user of their own, one after the other until each is acknowledged, and ask for a
ranking after each. Every answer must have the scores that a Ranker gives offline for this history and the versions of
the adapters that the answer names.
"""

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file, save_file
from serving_load import write_adapters

from lorarec.backbone import Backbone
from lorarec.data import Dataset, histories_of
from lorarec.data.sample import load_sample
from lorarec.lora import Adapter, AdapterBank, read_adapter
from lorarec.ranking import Ranker

CANDIDATES = 10
#: Number of different requests, and of items in the cycle of items that clients choose.
REQUESTS, CYCLE = 40, 24
#: Number of latest items of a history that are compared; prompts have fewer.
LATEST = 60
ADAPTERS: Sequence[dict[str, float]] = ({"general": 1.0}, {"specific": 1.0}, {"general": 0.3, "specific": 0.7})
#: Scores further than this from the offline ones are wrong.
TOLERANCE = 1e-3
#: Seconds that a client waits after a failure.
PAUSE = 0.1
#: Seconds that a client waits for an answer.
TIMEOUT = 60.0

#: Items of a history, candidates, and weights by version of the adapter.
Case = tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, float], ...]]


class Shop:
    """A dataset, and adapters in versions that can be exchanged.

    Args:
        folder: Empty folder for the dataset, the versions and the folder of adapters.

    Attributes:
        data: The dataset.
        folder: Folder with `data`, and with `adapters`, which has links to versions.
        requests: User, history and candidates of each request.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backbone = Backbone.from_pretrained()
        self.data: Dataset = load_sample().save(folder / "data")
        write_adapters(self.backbone, folder / "versions")
        shutil.copytree(folder / "versions" / "general", folder / "versions" / "general2")
        weights = folder / "versions" / "general2" / "adapter_model.safetensors"
        save_file({name: tensor / 2 for name, tensor in load_file(weights).items()}, weights)
        (folder / "adapters").mkdir()
        self.put("general", "general")
        self.put("specific", "specific")
        adapters = [read_adapter(path) for path in sorted((folder / "versions").iterdir())]
        self._versions: dict[str, Adapter] = {each.fingerprint: each for each in adapters}
        rng = np.random.default_rng(0)
        items = self.data.items["item_id"].to_list()
        cases = histories_of(self.data.interactions).sample(REQUESTS, seed=0)
        self.requests = [
            (user, tuple(history), tuple(items[i] for i in rng.choice(len(items), CANDIDATES, replace=False)))
            for user, history in zip(cases["user_id"], cases["history"].to_list(), strict=True)
        ]
        self.cycle = [items[i] for i in rng.choice(len(items), CYCLE, replace=False)]

    def put(self, name: str, version: str) -> None:
        """Let a name of the folder of adapters stand for a version."""
        link = self.folder / "new"
        link.symlink_to(self.folder / "versions" / version, target_is_directory=True)
        os.replace(link, self.folder / "adapters" / name)

    def expected(self, cases: Sequence[Case]) -> dict[Case, np.ndarray]:
        """Score cases offline."""
        found: dict[Case, np.ndarray] = {}
        for mixture in dict.fromkeys(mixture for _, _, mixture in cases):
            mine = [case for case in cases if case[2] == mixture]
            parts = [self._versions[version] for version, _ in mixture]
            bank = AdapterBank.stack(parts)
            merged = bank.to_adapter(torch.tensor([weight for _, weight in mixture]), "factors")
            frame = pl.DataFrame(
                {
                    "user_id": [None] * len(mine),
                    "history": [list(history) for history, _, _ in mine],
                    "candidates": [list(candidates) for _, candidates, _ in mine],
                },
                schema_overrides={"user_id": pl.String},
            )
            with Ranker(self.backbone, replace(merged, record=parts[0].record)) as ranker:
                found |= dict(zip(mine, ranker.score_cases(frame, self.data.titles), strict=True))
        return found


@dataclass
class Outcomes:
    """What the clients got.

    Attributes:
        statuses: Number of answers by call and status. `no answer` counts broken connections and time that ran out.
        details: One detail of a failure for each call and status.
        answers: Scores of rankings by case.
        acknowledged: Ids of events that were acknowledged.
        asked: Number of rankings that were answered.
    """

    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    details: dict[tuple[str, str], str] = field(default_factory=dict)
    answers: dict[Case, list[np.ndarray]] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    asked: int = 0

    def wrong(self, shop: Shop) -> tuple[int, float]:
        """Return the number of wrong answers and the largest difference of a score."""
        expected = shop.expected(list(self.answers))
        worst = [
            float(np.abs(scores - expected[case]).max()) for case, found in self.answers.items() for scores in found
        ]
        return sum(not difference <= TOLERANCE for difference in worst), max(worst, default=0.0)


class Clients:
    """Closed-loop clients of one address.

    Args:
        shop: What they ask for.
        url: Address of the service.
    """

    def __init__(self, shop: Shop, url: str) -> None:
        self._shop = shop
        self._http = httpx2.AsyncClient(base_url=url, timeout=TIMEOUT, limits=httpx2.Limits(max_connections=None))
        self.outcomes = Outcomes()

    async def run(self, clients: int, seconds: float, faults: Callable[["Clients"], Awaitable[None]]) -> Outcomes:
        """Let clients ask for a time while something else happens.

        Args:
            clients: Number of clients.
            seconds: Number of seconds after which they end.
            faults: What happens meanwhile; it is waited for.
        """
        loop = asyncio.get_running_loop()
        self._end = loop.time() + seconds
        async with self._http:
            asking = [self._write(number) if number % 4 == 3 else self._read(number) for number in range(clients)]
            await asyncio.gather(faults(self), *asking)
        return self.outcomes

    async def send(self, call: str, method: str, path: str, body: Any = None) -> Any:
        """Send a request and count its outcome; return the JSON of a successful answer, otherwise None."""
        try:
            response = await self._http.request(method, path, json=body)
        except httpx2.TransportError as error:
            return self._fail((call, "no answer"), repr(error))
        key = (call, str(response.status_code))
        if response.status_code >= 400:
            is_problem = response.headers.get("content-type") == "application/problem+json"
            return self._fail(key, response.json()["detail"] if is_problem else response.text[:120])
        self.outcomes.statuses[key] += 1
        return response.json() if response.content else {}

    def _fail(self, key: tuple[str, str], detail: str) -> None:
        self.outcomes.statuses[key] += 1
        self.outcomes.details.setdefault(key, detail)

    async def _rank(self, user: str, history: Sequence[str], candidates: Sequence[str], number: int) -> None:
        weights = ADAPTERS[number % len(ADAPTERS)]
        body = {"user_id": user, "candidates": list(candidates), "adapter": weights}
        answer = await self.send("rank", "POST", "/v1/rank", body)
        if answer is None:
            await asyncio.sleep(PAUSE)
            return
        scores = {item["candidate"]: item["score"] for item in answer["ranking"]}
        mixture = tuple((answer["versions"][name], weight) for name, weight in weights.items())
        case = (tuple(history)[-LATEST:], tuple(candidates), mixture)
        self.outcomes.answers.setdefault(case, []).append(np.array([scores[i] for i in range(len(candidates))]))
        self.outcomes.asked += 1

    @property
    def _is_over(self) -> bool:
        return asyncio.get_running_loop().time() > self._end

    async def _read(self, number: int) -> None:
        while not self._is_over:
            number += 1
            await self._rank(*self._shop.requests[number * 7 % REQUESTS], number)

    async def _write(self, number: int) -> None:
        user, history = f"writer {number}", list[str]()
        candidates = self._shop.requests[0][2]
        while not self._is_over:
            item, event_id = self._shop.cycle[len(history) % CYCLE], f"{number}-{len(history)}"
            event = {"user_id": user, "item_id": item, "event_id": event_id}
            while await self.send("event", "POST", "/v1/events", {"events": [event]}) is None:
                await asyncio.sleep(PAUSE)
            self.outcomes.acknowledged.add(event_id)
            history.append(item)
            await self._rank(user, history, candidates, len(history) + number)


def report(outcomes: Outcomes, shop: Shop, stored: Sequence[str]) -> bool:
    """Print the outcomes; return whether no answer was wrong, no event lost or stored twice, and no request unanswered.

    Args:
        outcomes: What the clients got.
        shop: What they asked for.
        stored: Ids of the events in the database.
    """
    wrong, worst = outcomes.wrong(shop)
    lost = outcomes.acknowledged - set(stored)
    twice = len(stored) - len(set(stored))
    for (call, status), count in sorted(outcomes.statuses.items()):
        print(f"{call:8} {status:9} {count:7}  {outcomes.details.get((call, status), '')}".rstrip())
    unanswered = sum(count for (_, status), count in outcomes.statuses.items() if status == "no answer")
    print(
        f"{outcomes.asked} rankings of {len(outcomes.answers)} cases: {wrong} wrong (largest difference {worst:.0e}); "
        f"{len(outcomes.acknowledged)} events acknowledged: {len(lost)} lost, {twice} stored twice; "
        f"{unanswered} requests without an answer",
        flush=True,
    )
    return not (wrong or lost or twice or unanswered)
