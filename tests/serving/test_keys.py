"""API keys with roles: the file, its rotation while the service runs, and the rights of each route."""

import asyncio
import hashlib
import itertools
import json
import logging
import os
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorarec.errors import LorarecError
from lorarec.serving import keys as keys_module
from lorarec.serving import logs
from lorarec.serving.app import create_app
from lorarec.serving.http_config import HttpConfig
from lorarec.serving.keys import ROLES, ApiKeys, parse_keys
from lorarec.serving.middleware import PUBLIC_PATHS
from lorarec.serving.route_roles import ROUTE_ROLES, required_role
from lorarec.serving.service import Service

READER, TRACKER, ADMIN = "reader-0123456789", "tracker-0123456789", "administrator-0123456789"
FILE = f"""
# keys of the shop
- name: website
  key: {READER}
  roles: [read]
- name: tracker
  sha256: {hashlib.sha256(TRACKER.encode()).hexdigest()}
  roles: events
- {{name: operations, key: {ADMIN}, roles: admin}}
"""
#: A request of each role that is answered, whatever the role, by another status than 401 and 403.
CALLS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "read": ("POST", "/v1/rank", {"user_id": "u01", "candidates": ["x02"], "adapter": "general"}),
    "events": ("POST", "/v1/events", {"events": [{"user_id": "u01", "item_id": "x29"}]}),
    "admin": ("POST", "/v1/adapters", {"name": "general"}),
}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text(FILE)
    path.chmod(0o600)
    return path


@pytest.fixture
def scenario_with_keys(service: Service, keys_file: Path, play: Any) -> Any:
    """Run a scenario against a service with the keys of the file."""

    def run(scenario: Any, key: str | None = None) -> Any:
        return play(service, scenario, key, HttpConfig(keys=str(keys_file)), "http://shop.example")

    return run


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_every_route_has_a_role(service: Service) -> None:
    """A new route must be listed before a key without the role `admin` can call it."""
    app = create_app(service, "secret")
    routes = {(method, route.path) for route in app.routes for method in route.methods or ()}  # type: ignore[attr-defined]
    private = {(method, path) for method, path in routes if path not in PUBLIC_PATHS and method != "HEAD"}
    assert private == set(ROUTE_ROLES)
    assert set(ROUTE_ROLES.values()) == set(ROLES)
    assert {path for _, path in routes} >= set(PUBLIC_PATHS)


def test_a_route_that_is_not_listed_is_for_administrators() -> None:
    assert required_role("POST", "/v1/new") == "admin"
    assert required_role("HEAD", "/v1/items") == "read"


def test_each_key_has_the_rights_of_its_roles(scenario_with_keys: Any) -> None:
    allowed = {READER: {"read"}, TRACKER: {"events"}, ADMIN: set(ROLES), "secret": set(ROLES)}

    async def scenario(client: httpx2.AsyncClient) -> None:
        for (key, roles), (role, (method, path, body)) in itertools.product(allowed.items(), CALLS.items()):
            answer = await client.request(method, path, json=body, headers=bearer(key))
            assert answer.status_code == (200 if role in roles else 403), (key, role, answer.text)
            if role not in roles:
                assert f"lacks the role '{role}'" in answer.json()["detail"]
                assert answer.headers["content-type"] == "application/problem+json"
                assert key not in answer.text
        for key in (TRACKER, READER):
            for method in ("GET", "HEAD", "DELETE"):
                answer = await client.request(method, "/v1/users/u01", headers=bearer(key))
                assert answer.status_code == 403
        assert (await client.head("/v1/items", headers=bearer(READER))).status_code == 200
        assert (await client.get("/no/such/path", headers=bearer(TRACKER))).status_code == 404
        assert (await client.put("/v1/items", headers=bearer(READER))).status_code == 405
        for headers in ({}, bearer("reader"), bearer(READER + "x"), {"authorization": f"Basic {READER}"}):
            assert (await client.get("/v1/items", headers=headers)).status_code == 401
        assert (await client.get("/livez")).status_code == 200

    scenario_with_keys(scenario, "secret")


def test_a_refused_body_is_not_read(scenario_with_keys: Any) -> None:
    async def unread() -> Any:
        raise AssertionError("the body is read")
        yield b""

    async def scenario(client: httpx2.AsyncClient) -> None:
        assert (await client.post("/v1/adapters", content=unread(), headers=bearer(READER))).status_code == 403

    scenario_with_keys(scenario)


def test_the_description_names_the_roles(scenario_with_keys: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> dict[str, Any]:
        return (await client.get("/openapi.json", headers=bearer(READER))).json()["paths"]

    paths = scenario_with_keys(scenario)
    assert paths["/v1/events"]["post"]["security"] == [{"key": ["events"]}]
    assert paths["/v1/users/{user_id}"]["delete"]["security"] == [{"key": ["admin"]}]
    assert "security" not in paths["/livez"]["get"]


def test_keys_are_rotated_while_the_service_runs(
    scenario_with_keys: Any, keys_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keys_module, "RELOAD_SECONDS", 0.02)
    new = "website-2027-0123456789"
    both = f"{FILE}\n- {{name: website-2027, key: {new}, roles: read}}\n"

    async def scenario(client: httpx2.AsyncClient) -> None:
        async def statuses() -> tuple[int, int]:
            return tuple([(await client.get("/v1/items", headers=bearer(key))).status_code for key in (READER, new)])

        async def become(expected: tuple[int, int]) -> None:
            for _ in range(200):
                if await statuses() == expected:
                    return
                await asyncio.sleep(0.02)
            raise AssertionError(await statuses())

        assert await statuses() == (200, 401)
        keys_file.write_text(both)
        await become((200, 200))
        replaced = keys_file.with_name("new.yaml")
        replaced.write_text(both.replace(READER, "former-key-is-gone"))
        replaced.chmod(0o600)
        os.replace(replaced, keys_file)
        await become((401, 200))
        assert caplog.messages == []
        for broken in ("", "- name: website\n  key: short\n  roles: read\n", f"- {new}\n", "\tnothing"):
            keys_file.write_text(broken)
            await asyncio.sleep(0.1)
            assert await statuses() == (401, 200)
        keys_file.unlink()
        await asyncio.sleep(0.1)
        assert await statuses() == (401, 200)
        keys_file.write_text(FILE)
        keys_file.chmod(0o600)
        await become((200, 401))

    with caplog.at_level(logging.WARNING, "lorarec.serving.keys"):
        scenario_with_keys(scenario)
    assert len(caplog.messages) == 5  # each unusable state once
    assert all(str(keys_file) in message and "stay valid" in message for message in caplog.messages)
    assert [("line 1" in message) for message in caplog.messages] == [True, True, True, True, False]
    assert new not in caplog.text


def test_a_key_is_named_in_the_log_and_never_written(
    scenario_with_keys: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(logs.requests, "isEnabledFor", lambda _: True)
    monkeypatch.setattr(logs.requests, "info", lines.append)

    async def scenario(client: httpx2.AsyncClient) -> None:
        for key in (READER, ADMIN, "wrong-0123456789"):
            await client.get("/v1/items", headers=bearer(key))
            await client.post("/v1/adapters", json={"name": "general"}, headers=bearer(key))

    with caplog.at_level(logging.DEBUG):
        scenario_with_keys(scenario)
    names = [json.loads(line).get("key_name") for line in lines]
    assert names == ["website", "website", "operations", "operations", None, None]
    for key in (READER, ADMIN, "wrong-0123456789"):
        assert key not in caplog.text + "".join(lines)
    assert READER not in repr(parse_keys(FILE.encode(), "keys.yaml"))


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_that_others_read_is_warned_of(keys_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    for mode, warned in ((0o600, 0), (0o440, 0), (0o644, 1), (0o602, 1)):
        keys_file.chmod(mode)
        caplog.clear()
        assert ApiKeys(None, keys_file).required
        assert len(caplog.messages) == warned
        assert all("is open to all users" in message for message in caplog.messages)


def test_keys_from_the_environment_may_end_with_a_line_break() -> None:
    keys = ApiKeys("secret\n")
    assert keys.find(b"secret") == keys.find(b" secret ")
    assert keys.find(b"secret") is not None
    assert keys.find(b"") is keys.find(b"secre") is None
    assert not ApiKeys().required


CANARY = "canary-0123456789"
ENTRY = f"- name: a\n  key: {CANARY}\n  roles: read\n"
HOSTILE = {
    "": "line 1: give a list of keys",
    "[]": "line 1: give a list of keys",
    f"{CANARY}: read": "line 1: give a list of keys",
    f"- {CANARY}": "line 1: a key is a mapping",
    f"- [{CANARY}]": "line 1: a key is a mapping",
    f"- {CANARY}: read": "line 1: a key has another field",
    f"- name: a\n  key: {CANARY}\n": "line 1: roles is missing",
    f"- name: a\n  key: {CANARY}\n  roles: []": "line 1: roles must be",
    f"- name: a\n  key: {CANARY}\n  roles: [read, {CANARY}]": "line 1: roles must be",
    f"- name: a\n  key: {CANARY}\n  roles: {{read: 1}}": "line 1: roles must be",
    f"- name: a\n  key: {CANARY}\n  roles: Admin": "line 1: roles must be",
    f"- name: a\n  key: {CANARY}\n  roles:": "line 1: roles must be",
    f"- key: {CANARY}\n  roles: read": "line 1: name must be",
    f"- name: {CANARY} {CANARY}\n  key: {CANARY}\n  roles: read": "line 1: name must be",
    f"- name:\n  key: {CANARY}\n  roles: read": "line 1: name must be a text",
    "- name: a\n  roles: read": "line 1: give either key or sha256",
    f"- name: a\n  key: {CANARY}\n  sha256: {'0' * 64}\n  roles: read": "line 1: give either key or sha256",
    f"- name: a\n  sha256: {CANARY}\n  roles: read": "line 1: sha256 must be",
    "- name: a\n  key: canary\n  roles: read": "line 1: key must be",
    "- name: a\n  key: '                    '\n  roles: read": "line 1: key must be",
    f'- name: a\n  key: "{CANARY}\\n{CANARY}"\n  roles: read': "line 1: key must be",
    f"- name: a\n  key: [{CANARY}]\n  roles: read": "line 1: key must be a text",
    f"- name: a\n  key: {CANARY * 100}\n  roles: read": "line 1: key must be",
    f"{ENTRY}{ENTRY}": "line 4: two keys have the same name",
    f"{ENTRY}{ENTRY.replace('name: a', 'name: b')}": "line 4: the same key is listed twice",
    f"{ENTRY}- name: b\n  sha256: {hashlib.sha256(CANARY.encode()).hexdigest()}\n  roles: read": "listed twice",
    f"{ENTRY}  key: {CANARY}\n": "line 4: the mapping has the same name twice",
    f"{ENTRY}- *{CANARY}": "line 4: this is not YAML",
    f"{ENTRY}\tkey: {CANARY}": "line 4: this is not YAML",
}


@pytest.mark.parametrize("content", HOSTILE)
def test_unusable_files_are_refused_by_row(content: str) -> None:
    with pytest.raises(LorarecError) as refused:
        parse_keys(content.encode(), "keys.yaml")
    assert HOSTILE[content] in str(refused.value)
    assert str(refused.value).startswith("keys file keys.yaml, line")
    assert "canary" not in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.data())
def test_damaged_files_are_read_or_refused(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(FILE)))
    inserted = data.draw(st.text("-: \n\t{}[]'\"ab#&*!|>", max_size=5))
    removed = data.draw(st.integers(0, 10))
    content = FILE[:place] + inserted + FILE[place + removed :]
    try:
        parse_keys(content.encode(), "keys.yaml")
        message = ""
    except LorarecError as error:
        message = str(error)
    assert not any(key in message for key in (READER, TRACKER, ADMIN))
