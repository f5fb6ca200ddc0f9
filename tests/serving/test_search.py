"""Search for items and users, histories, and the weights of an adapter's parts."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lorarec.lora import mix
from lorarec.serving.pages import write_cursor
from lorarec.serving.search import TextSearch
from lorarec.serving.service import Service

BAD_CURSORS = [
    *("a", "%", "é", "W10", "bnVsbA", "AAAA", base64.urlsafe_b64encode(b"[" * 3000).decode()),
    *(write_cursor(key) for key in (["a"], [0, 1, "a", None], [True, 1, "a", "b"], [0, 2**63, "a", "b"])),
    write_cursor([0, 1, "\ud800", "b"]),
]
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
    assert TextSearch(FILMS, FILMS).search(query, 10).entries == found


@example(["\U0001e030"], "", 1)  # a letter of Unicode 15, which not every Python knows
@given(st.lists(st.text(), max_size=8), st.text(max_size=4), st.integers(1, 9))
def test_any_text_finds_at_most_the_limit_and_a_text_finds_itself(texts: list[str], query: str, limit: int) -> None:
    search = TextSearch(texts, [str(place) for place in range(len(texts))])
    page = search.search(query, limit)
    assert len(page.entries) == len(set(page.entries)) == min(limit, page.total)
    whole, pages = search.search(query, len(texts) + 1), [page]
    while pages[-1].next is not None:
        pages.append(search.search(query, limit, pages[-1].next))
    assert [entry for each in pages for entry in each.entries] == whole.entries
    assert {each.total for each in pages} == {len(whole.entries)}
    for place, text in enumerate(texts):
        assert str(place) in search.search(text, len(texts)).entries


def test_a_page_follows_the_one_before_whatever_was_added_or_hidden_since() -> None:
    first = TextSearch(["lamp", "lamp a", "lamp bb"], ["1", "2", "3"]).search("lamp", 2)
    assert (first.entries, first.total) == (["1", "2"], 3)
    later = TextSearch(["lamp", "lamp bb", "lamp", "lamp ccc"], ["1", "3", "0", "4"])  # 2 is gone, 0 and 4 are new
    assert later.search("lamp", 9, first.next).entries == ["3", "4"]
    hidden = later.search("lamp", 9, first.next, hidden={"3"})
    assert (hidden.entries, hidden.total, hidden.next) == (["4"], 3, None)


def test_items_users_and_histories(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        found = await client.get("/v1/items", params={"query": "lamp BL", "limit": 9})
        expected = [{"item_id": "x02", "title": "blue lamp"}, {"item_id": "x03", "title": "black lamp"}]
        assert found.json() == {"items": expected, "total": 2, "next": None}
        assert "link" not in found.headers
        assert len((await client.get("/v1/items")).json()["items"]) == 10
        users = await client.get("/v1/users", params={"query": "u0", "limit": 2})
        assert (users.json()["users"], users.json()["total"]) == (["u00", "u01"], 10)
        event = {"events": [{"user_id": "a/?", "item_id": "x29"}, {"user_id": "a/?", "item_id": "x01"}]}
        await client.post("/v1/events", json=event)
        history = await client.get("/v1/history", params={"user_id": "a/?", "limit": 1})
        assert history.json() == {"items": [{"item_id": "x01", "title": "green lamp"}]}

    play(service, scenario)


def test_all_pages_are_found_by_links(service: Service, play: Any) -> None:
    async def pages(client: httpx2.AsyncClient, url: str) -> list[dict[str, Any]]:
        found, answer = [], await client.get(url)
        while True:
            found.append(answer.raise_for_status().json())
            assert (found[-1]["next"] is None) == ("next" not in answer.links)
            if found[-1]["next"] is None:
                return found
            answer = await client.get(answer.url.join(answer.links["next"]["url"]))

    async def scenario(client: httpx2.AsyncClient) -> None:
        found = await pages(client, "/v1/items?query=la%20m&limit=2")
        assert [len(each["items"]) for each in found] == [2, 2, 1]
        assert {each["total"] for each in found} == {5}
        users = await pages(client, "/v1/users?limit=7")
        assert [user for each in users for user in each["users"]] == [f"u{k:02}" for k in range(20)]
        await client.delete("/v1/users/u08")
        after = (await client.get(f"/v1/users?limit=7&cursor={users[0]['next']}")).json()
        assert after["users"] == ["u07", *(f"u{k:02}" for k in range(9, 15))]
        assert after["total"] == 19
        listed = await pages(client, "/v1/adapters?limit=3")
        assert [each["available"] for each in listed] == [["general", "listed", "listed2"], ["specific"]]
        assert [[one["name"] for one in each["loaded"]] for each in listed] == [each["available"] for each in listed]
        await client.delete("/v1/adapters/specific")
        second = (await client.get(f"/v1/adapters?limit=3&cursor={listed[0]['next']}")).json()
        assert (second["available"], second["loaded"], second["total"]) == (["specific"], [], 4)
        whole = (await client.get("/v1/adapters")).json()
        assert (len(whole["available"]), whole["next"]) == (4, None)

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
        *((f"/v1/{name}?cursor=", 422, "cursor") for name in ("items", "users", "adapters")),
        *((f"/v1/items?cursor={cursor}", 422, "cursor") for cursor in BAD_CURSORS),
        (f"/v1/items?cursor={write_cursor([0, 5, 'lamp', 'x'])}", 200, None),
        (f"/v1/adapters?cursor={write_cursor([0, 5, 'lamp', 'x'])}", 422, "cursor"),
        ("/v1/adapters?limit=0", 422, "limit"),
        ("/v1/history", 422, "user_id"),
        ("/v1/history?user_id=", 422, "user_id"),
        ("/v1/history?user_id=%00", 422, "user_id"),
        ("/v1/history?user_id=nobody'--", 404, "user_id"),
        ("/v1/items?query=%ff%ed%a0%80", 200, None),
        ("/v1/adapters/nothing", 404, "name"),
    ],
)
def test_invalid_queries(play_shared: Any, path: str, status: int, field: str | None) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = await client.get(path)
        assert answer.status_code == status, answer.text
        assert answer.json().get("errors", [{}])[0].get("field") == field

    play_shared(scenario)


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
