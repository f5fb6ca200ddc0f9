"""No request gets a server error."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorarec.backbone import Backbone
from lorarec.data import EARLIEST_TIME, LATEST_TIME, Dataset, leave_one_out, load_split
from lorarec.serving.app import create_app
from lorarec.serving.service import Service

WORDS = ["x01", "x29", "u01", "general", "listed", "a\ud800", "\0", "", "é", "'; --", "../general", "1" * 600]
LEAVES = st.one_of(
    st.sampled_from(WORDS),
    *(st.none(), st.booleans(), st.floats(), st.text(max_size=5)),
    st.sampled_from([0, 1, -1, 2**63, -(2**63), 2**63 - 1, 10**400]),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*WORDS, "title"]), inner, max_size=3),
    max_leaves=6,
)
ITEMS = st.lists(st.sampled_from(["x01", "x02", "x29", {"title": "red <b>"}]), min_size=1, max_size=3)
MIXTURES = st.sampled_from(["chosen", {"chosen": 0.5, "specific": 0.5}]) | st.sampled_from(
    ["general", {"general": 0.5, "specific": 0.5}, {}, "listed", {"listed": 1, "general": 0}]
)
USERS = st.sampled_from(["u01", "new"])
EVENTS = st.fixed_dictionaries(
    {"user_id": USERS, "item_id": st.sampled_from(["x01", "x29"])},
    optional={"timestamp": st.sampled_from([0, EARLIEST_TIME, LATEST_TIME - 1])},
)
ODD_EVENTS = st.fixed_dictionaries(
    {"user_id": USERS | st.sampled_from(WORDS), "item_id": st.sampled_from(["x01", "nothing"])},
    optional={"timestamp": LEAVES, "event_id": LEAVES},
)
CONDITIONS = st.fixed_dictionaries(
    {
        "column": st.sampled_from(["title", "item_id", "nothing"]),
        "op": st.sampled_from(["=", "!=", "<=", "in", "contains"]),
        "value": st.sampled_from(["red lamp", ["x01"], 3, True, 1e308, 10**400]),
    }
)
FIELDS = {
    "/v1/rank": {"user_id": USERS, "history": ITEMS, "candidates": ITEMS, "adapter": MIXTURES},
    "/v1/recommend": {
        **{"user_id": USERS, "history": ITEMS, "top": st.integers(1, 9), "adapter": MIXTURES},
        "where": st.lists(CONDITIONS, max_size=2),
        "at_most": st.dictionaries(st.sampled_from(["title", "nothing"]), st.integers(1, 3), max_size=2),
        "boost": st.lists(st.fixed_dictionaries({"where": CONDITIONS, "add": st.floats(-1, 1)}), max_size=2),
    },
    "/v1/explain": {
        **{"user_id": USERS, "history": ITEMS, "candidates": ITEMS, "adapter": MIXTURES},
        "candidate": st.integers(-1, 4),
    },
    # The query is ignored; it tells the two kinds of bodies apart.
    "/v1/explain?recommended": {
        **{"user_id": USERS, "history": ITEMS, "adapter": MIXTURES, "item_id": st.sampled_from(["x01", "x29"])},
        **{name: st.lists(st.sampled_from(["x01", "x02", "x29"]), max_size=2) for name in ("allow", "deny")},
    },
    "/v1/events": {"events": st.lists(EVENTS, max_size=3) | st.lists(ODD_EVENTS, max_size=3)},
    "/v1/batch": {
        "requests": st.lists(
            st.fixed_dictionaries({"path": st.sampled_from(["/v1/rank", "/v1/recommend"]), "body": ANYTHING}),
            min_size=1,
            max_size=3,
        )
    },
    "/v1/aliases": {
        "alias": st.sampled_from([*WORDS, "prod"]),
        "adapter": st.sampled_from(["general", "chosen", "nothing", "prod"]),
    },
    "/v1/items": {
        "items": st.lists(
            st.fixed_dictionaries(
                {"item_id": st.sampled_from([*WORDS, "n1"]), "title": st.sampled_from(["red sofa", "lamp", " "])},
                optional={"columns": st.dictionaries(st.sampled_from(["title", "a", ""]), LEAVES, max_size=1)},
            ),
            max_size=2,
        )
    },
    "/v1/adapters": {"name": st.sampled_from(["general", "chosen", "nothing"])},
}


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, Any]:
    """Draw a path and a body: a valid one, one with some invalid fields, or any JSON."""
    path = draw(st.sampled_from(list(FIELDS)))
    if draw(st.booleans()):
        other = draw(st.sampled_from(["user_id", "history"]))  # a request has one of them
        return path, draw(st.fixed_dictionaries({name: f for name, f in FIELDS[path].items() if name != other}))
    fields = {name: right | ANYTHING for name, right in FIELDS[path].items()}
    return path, draw(ANYTHING | st.fixed_dictionaries({}, optional=fields))


@pytest.fixture
def shop(shop: Dataset, tmp_path: Path) -> Dataset:
    """The shop with ratings, on which the click-through model of a user router is trained."""
    rated = shop.interactions.with_columns(pl.Series("rating", [1.0 + k % 5 for k in range(120)], pl.Float32))
    dataset = Dataset.from_frames("shop", rated, shop.items).save(tmp_path / "shop")
    leave_one_out(dataset, negatives=3).save(tmp_path / "shop" / "split")
    return dataset


def test_no_body_gives_a_server_error(
    tiny_backbone: Backbone,
    shop: Dataset,
    adapters: Path,
    write_user_router: Callable[..., None],
    make_service: Callable[..., Service],
) -> None:
    write_user_router(
        tiny_backbone, adapters / "chosen", ("general", "specific"), shop, load_split(shop), ctr_model="din"
    )
    service = make_service(wait_ms=0)
    app = create_app(service)
    lifespan = app.router.lifespan_context(app)
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost")

    async def post(path: str, body: Any) -> httpx2.Response:
        return await client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})

    async def begin() -> None:
        await lifespan.__aenter__()

    async def end() -> None:
        await lifespan.__aexit__(None, None, None)

    with asyncio.Runner() as runner:
        runner.run(begin())

        @settings(max_examples=200, suppress_health_check=list(HealthCheck), database=None)
        @given(requests())
        def check(request: tuple[str, Any]) -> None:
            answer = runner.run(post(*request))
            assert answer.status_code < 500
            if answer.status_code >= 400:
                assert answer.json()["detail"]

        check()
        runner.run(end())
