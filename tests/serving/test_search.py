"""Search for items and users, histories, and the weights of an adapter's parts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lorarec.lora import mix
from lorarec.serving.search import TextSearch
from lorarec.serving.service import Service

FILMS = ["Amélie", "The Matrix", "Matrix Reloaded, The", "Star Wars", "Wars of the Stars, a Matrix", "ÅNGSTRÖM", "100%"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("matrix", ["Matrix Reloaded, The", "The Matrix", "Wars of the Stars, a Matrix"]),
        ("MATRIX the", ["The Matrix", "Matrix Reloaded, The", "Wars of the Stars, a Matrix"]),
        ("  the   matrix ", ["The Matrix", "Matrix Reloaded, The", "Wars of the Stars, a Matrix"]),
        ("amelie", ["Amélie"]),
        ("angstrom", ["ÅNGSTRÖM"]),
        ("star wars", ["Star Wars", "Wars of the Stars, a Matrix"]),
        ("0%", ["100%"]),
        (".*", []),
        ("matrix nothing", []),
    ],
)
def test_all_words_whatever_their_case_and_accents(query: str, found: list[str]) -> None:
    assert [FILMS[place] for place in TextSearch(FILMS).search(query, 10)] == found


@example(["\U0001e030"], "", 1)  # a letter of Unicode 15, which not every Python knows
@given(st.lists(st.text(), max_size=8), st.text(max_size=4), st.integers(1, 9))
def test_any_text_finds_at_most_the_limit_and_a_text_finds_itself(texts: list[str], query: str, limit: int) -> None:
    found = TextSearch(texts).search(query, limit)
    assert len(found) == len(set(found)) <= min(limit, len(texts))
    for place, text in enumerate(texts):
        assert place in TextSearch(texts).search(text, len(texts))


def test_items_users_and_histories(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        found = await client.get("/v1/items", params={"query": "lamp BL", "limit": 9})
        expected = [{"item_id": "x02", "title": "blue lamp"}, {"item_id": "x03", "title": "black lamp"}]
        assert found.json() == {"items": expected}
        assert len((await client.get("/v1/items")).json()["items"]) == 10
        users = await client.get("/v1/users", params={"query": "u0", "limit": 2})
        assert users.json() == {"users": ["u00", "u01"]}
        event = {"events": [{"user_id": "a/?", "item_id": "x29"}, {"user_id": "a/?", "item_id": "x01"}]}
        await client.post("/v1/events", json=event)
        history = await client.get("/v1/history", params={"user_id": "a/?", "limit": 1})
        assert history.json() == {"items": [{"item_id": "x01", "title": "green lamp"}]}

    play(service, scenario)


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/v1/items?limit=0", 422, "limit"),
        ("/v1/items?limit=101", 422, "limit"),
        ("/v1/users?limit=x", 422, "limit"),
        ("/v1/items?query=" + "a" * 101, 422, "query"),
        ("/v1/items?query=%00", 422, "query"),
        ("/v1/users?query=%00", 422, "query"),
        ("/v1/history", 422, "user_id"),
        ("/v1/history?user_id=", 422, "user_id"),
        ("/v1/history?user_id=%00", 422, "user_id"),
        ("/v1/history?user_id=nobody'--", 404, "user_id"),
        ("/v1/items?query=%ff%ed%a0%80", 200, None),
        ("/v1/adapters/nothing", 404, "name"),
    ],
)
def test_invalid_queries(service: Service, play: Any, path: str, status: int, field: str | None) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = await client.get(path)
        assert answer.status_code == status, answer.text
        assert answer.json().get("errors", [{}])[0].get("field") == field

    play(service, scenario)


def test_weights_of_an_adapters_parts(
    make_service: Callable[..., Service], offline: Any, adapters: Path, play: Any, write_adapter: Any
) -> None:
    pair = [adapters / "general", adapters / "specific"]
    mix(offline.backbone, pair, out=adapters / "mixed", method="fixed", weights=[0.3, 0.7])
    layers = list(offline.adapters["general"].tensors)
    own = {layer: [0.1, 0.9] for layer in layers}
    personal = {"user": "u42", "personal": {"names": ["general", "specific"], "weights": own}}
    write_adapter(offline.backbone.model, adapters / "personal", 9, {"readout": "verdict"} | personal)
    expected = {
        "general": (None, {"general": 1.0}),
        "mixed": (None, {"general": 0.3, "specific": 0.7}),
        "personal": ("u42", {"general": 0.1, "specific": 0.9}),
    }

    async def scenario(client: httpx2.AsyncClient) -> None:
        for name, (user, weights) in expected.items():
            details = (await client.get(f"/v1/adapters/{name}")).raise_for_status().json()
            assert (details["name"], details["user_id"]) == (name, user)
            assert [one["layer"] for one in details["layers"]] == layers
            assert all(one["weights"] == weights for one in details["layers"])

    play(make_service(load=list(expected)), scenario)
