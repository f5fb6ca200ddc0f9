"""Adapters are loaded and unloaded while requests are served; damaged files do not affect loaded adapters."""

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from lorarec.lora.peft_folder import ADAPTER_CONFIG_FILE
from lorarec.serving.service import Service

CANDIDATES = ["x02", "x05", "x29"]


def body(adapter: Any) -> dict[str, Any]:
    return {"history": ["x01"], "candidates": CANDIDATES, "adapter": adapter}


async def scores(client: httpx2.AsyncClient, adapter: Any) -> np.ndarray:
    answer = await client.post("/v1/rank", json=body(adapter))
    assert answer.status_code == 200, answer.text
    found = {item["candidate"]: item["score"] for item in answer.json()["ranking"]}
    return np.array([found[place] for place in range(len(CANDIDATES))])


def test_list_load_and_unload(make_service: Callable[..., Service], offline: Any, play: Any) -> None:
    service = make_service(load=["general"])

    async def scenario(client: httpx2.AsyncClient) -> None:
        listed = (await client.get("/v1/adapters")).json()
        assert listed["available"] == ["general", "listed", "listed2", "specific"]
        assert [(one["name"], one["rank"], one["readout"]) for one in listed["loaded"]] == [("general", 3, "verdict")]
        only = await scores(client, None)
        np.testing.assert_allclose(only, offline.scores({"general": 1.0}, None, ["x01"], CANDIDATES), atol=1e-4)
        assert (await client.post("/v1/rank", json=body("specific"))).status_code == 404
        loaded = await client.post("/v1/adapters", json={"name": "specific"})
        assert loaded.status_code == 200
        assert loaded.json()["fingerprint"] == offline.adapters["specific"].fingerprint
        mixture = {"general": 0.3, "specific": 0.7}
        expected = offline.scores(mixture, None, ["x01"], CANDIDATES)
        np.testing.assert_allclose(await scores(client, mixture), expected, atol=1e-4)
        assert (await client.delete("/v1/adapters/general")).status_code == 204
        assert (await client.delete("/v1/adapters/general")).status_code == 404
        expected = offline.scores({"specific": 1.0}, None, ["x01"], CANDIDATES)
        np.testing.assert_allclose(await scores(client, None), expected, atol=1e-4)
        await client.delete("/v1/adapters/specific")
        expected = offline.scores({}, None, ["x01"], CANDIDATES)
        np.testing.assert_allclose(await scores(client, {}), expected, atol=1e-4)

    play(service, scenario)


def test_requests_before_an_unload_are_answered_with_the_adapter(service: Service, offline: Any, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        release = threading.Event()
        blocked = asyncio.ensure_future(service.batcher.call(release.wait))
        waiting = [asyncio.ensure_future(scores(client, "specific")) for _ in range(3)]
        while len(service.batcher._queue) < 3:
            await asyncio.sleep(0.01)
        unloading = asyncio.ensure_future(client.delete("/v1/adapters/specific"))
        while "specific" in service.adapters.loaded:
            await asyncio.sleep(0.01)
        assert (await client.post("/v1/rank", json=body("specific"))).status_code == 404
        release.set()
        await blocked
        expected = offline.scores({"specific": 1.0}, None, ["x01"], CANDIDATES)
        for found in await asyncio.gather(*waiting):
            np.testing.assert_allclose(found, expected, atol=1e-4)
        assert (await unloading).status_code == 204

    play(service, scenario)


def test_reload_under_load_gives_the_old_or_the_new_scores(
    service: Service, offline: Any, adapters: Path, play: Any
) -> None:
    old, new = (offline.scores({name: 1.0}, None, ["x01"], CANDIDATES) for name in ("general", "specific"))

    async def scenario(client: httpx2.AsyncClient) -> None:
        shutil.rmtree(adapters / "general")
        shutil.copytree(adapters / "specific", adapters / "general")
        asked = [asyncio.ensure_future(scores(client, "general")) for _ in range(8)]
        reloaded = asyncio.ensure_future(client.post("/v1/adapters", json={"name": "general"}))
        while not reloaded.done():
            asked += [asyncio.ensure_future(scores(client, "general")) for _ in range(2)]
            await asyncio.sleep(0.01)
        assert (await reloaded).status_code == 200
        for found in await asyncio.gather(*asked):
            assert min(np.abs(found - old).max(), np.abs(found - new).max()) < 1e-4
        np.testing.assert_allclose(await scores(client, "general"), new, atol=1e-4)

    play(service, scenario)


@pytest.mark.parametrize("fault", ["cut", "overwritten", "pickle", "no config", "gone"])
def test_a_broken_folder_leaves_what_is_in_memory(
    make_service: Callable[..., Service], offline: Any, adapters: Path, play: Any, fault: str
) -> None:
    service = make_service(load=["general"])
    expected = offline.scores({"general": 1.0}, None, ["x01"], CANDIDATES)
    weights = adapters / "general" / "adapter_model.safetensors"

    def break_it() -> None:
        if fault == "cut":
            with weights.open("r+b") as stream:
                stream.truncate(100)
        if fault == "overwritten":
            with weights.open("r+b") as stream:
                stream.write(b"\xff" * weights.stat().st_size)
        if fault == "pickle":
            weights.rename(weights.with_name("adapter_model.bin"))
        if fault == "no config":
            (adapters / "general" / "adapter_config.json").unlink()
        if fault == "gone":
            shutil.rmtree(adapters / "general")

    async def scenario(client: httpx2.AsyncClient) -> None:
        break_it()
        answer = await client.post("/v1/adapters", json={"name": "general"})
        message = answer.json()["errors"][0]["message"]
        assert answer.json()["errors"][0]["field"] == "name"
        if fault in ("no config", "gone"):
            assert answer.status_code == 404
            assert "loaded general" in message
        else:
            assert answer.status_code == 422
            assert message.startswith("adapter general cannot be loaded: ")
            assert message.endswith("; the version in memory stays in use")
        assert str(adapters) not in message
        # Another adapter makes the model stack all of them anew.
        assert (await client.post("/v1/adapters", json={"name": "specific"})).status_code == 200
        np.testing.assert_allclose(await scores(client, "general"), expected, atol=1e-4)
        listed = (await client.get("/v1/adapters")).json()["loaded"]
        assert [one["in_folder"] for one in listed] == [fault not in ("no config", "gone"), True]

    play(service, scenario)


def test_an_adapter_that_does_not_fit_is_refused_and_the_others_go_on(
    service: Service, offline: Any, adapters: Path, write_adapter: Any, play: Any
) -> None:
    write_adapter(offline.backbone.model, adapters / "wide", 9, {"readout": "verdict"}, r=5)
    write_adapter(offline.backbone.model, adapters / "foreign", 9, {"backbone": {"id": "other", "fingerprint": "f0"}})

    async def scenario(client: httpx2.AsyncClient) -> None:
        for name, message in (("wide", "use combine=deltas"), ("foreign", "belongs to backbone other")):
            answer = await client.post("/v1/adapters", json={"name": name})
            assert answer.status_code == 422
            assert message in answer.json()["detail"]
        expected = offline.scores({"general": 1.0}, None, ["x01"], CANDIDATES)
        np.testing.assert_allclose(await scores(client, "general"), expected, atol=1e-4)

    play(service, scenario)


def test_names_are_never_paths(service: Service, adapters: Path, play: Any) -> None:
    names = ["../adapters/general", "..", ".", "/", "general/", "general/../general", "./general"]
    names += ["..\\general", "notes", ".hidden", "general\n", "%2e%2e", "~", "*"]
    shutil.copytree(adapters / "general", adapters / ".hidden")
    shutil.copytree(adapters / "general", adapters.parent / "outside")

    async def scenario(client: httpx2.AsyncClient) -> None:
        for tried in (*names, *(f"../outside{name}" for name in names), str(adapters.parent / "outside")):
            answer = await client.post("/v1/adapters", json={"name": tried})
            assert answer.status_code == 404, tried
            quoted = "".join(f"%{byte:02x}" for byte in tried.encode())
            assert (await client.delete(f"/v1/adapters/{quoted}")).status_code in (404, 405), tried
        assert len(service.adapters.loaded) == 4

    play(service, scenario)


def test_loading_takes_nothing_but_a_name(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        for wrong in ({"name": "general", "path": "/tmp"}, {"path": "/tmp"}, {"name": ["general"]}, {"name": ""}):
            assert (await client.post("/v1/adapters", json=wrong)).status_code == 422

    play(service, scenario)


def copy_of(adapters: Path, name: str, change: Callable[[Path], Any]) -> Path:
    shutil.copytree(adapters / "general", adapters / name)
    change(adapters / name)
    return adapters / name


def with_record(**record: Any) -> Callable[[Path], Any]:
    return lambda folder: (folder / "lorarec.json").write_text(json.dumps(record))


def with_options(**options: Any) -> Callable[[Path], Any]:
    return with_record(readout="verdict", options=options)


def with_template(text: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        (folder / "own.j2").write_text(text)
        with_options(template="own.j2")(folder)

    return change


def with_fifo(name: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        if name == "own.j2":
            with_options(template=name)(folder)

    return change


def with_link(name: str, target: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
        if name == "own.j2":
            with_options(template=name)(folder)

    return change


def with_config(**settings: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return change


def with_factor(factor: float) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        save_file({name: tensor * factor for name, tensor in load_file(path).items()}, path)

    return change


HOSTILE = {
    "endless loops": with_template("{% for a in range(10**9) %}{% endfor %}{{ candidate }}"),
    "long text": with_template("{{ 'a' * 10**9 }}{{ candidate }}"),
    "recursion": with_template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}{{ candidate }}"),
    "wide text": with_template("{{ 'a' | center(10**9) }}{{ candidate }}"),
    "nested loops": with_template("{% for a in history %}" * 9 + "{% endfor %}" * 9 + "{{ candidate }}"),
    "no candidate": with_template("words"),
    "template elsewhere": with_options(template="/etc/passwd"),
    "template above": with_options(template="../../secret.txt"),
    "template linked": with_link("own.j2", "/etc/passwd"),
    "template of zeros": with_link("own.j2", "/dev/zero"),
    "template that waits": with_fifo("own.j2"),
    "record that waits": with_fifo("lorarec.json"),
    "weights that wait": with_fifo("adapter_model.safetensors"),
    "record of zeros": with_link("lorarec.json", "/dev/zero"),
    "weights of zeros": with_link("adapter_model.safetensors", "/dev/zero"),
    "record in a circle": with_link("lorarec.json", "lorarec.json"),
    "deep record": lambda folder: (folder / "lorarec.json").write_text("[" * 10**6),
    "pattern": with_config(alpha_pattern={"(.|.|..)+[XY]": 3}),
    "counts in a pattern": with_config(rank_pattern={"(a{100000}){100000}": 3}),
    "many items": with_options(max_history="many"),
    "no items": with_options(max_history=0),
    "short prompts": with_options(max_tokens=1),
    "negative length": with_options(max_title_tokens=-1),
    "evidence in words": with_options(evidence="yes"),
    "another readout": with_record(readout="guess"),
    "options in a list": with_record(options=[1]),
    "weights in words": with_record(mix={"weights": ["much"]}),
    "datasets in words": with_record(datasets="games"),
    "overflow": with_factor(1e30),
    "alpha": with_config(lora_alpha=None),
}


def test_folders_that_cannot_be_used_break_nothing(
    make_service: Callable[..., Service],
    offline: Any,
    adapters: Path,
    play: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lorarec.lora.peft_config.PATTERN_SECONDS", 0.5)
    monkeypatch.setattr("lorarec.prompts.sandbox.SECONDS", 0.5)
    (adapters.parent / "secret.txt").write_text("{{ candidate }} S3CRET")
    for kind, change in HOSTILE.items():
        copy_of(adapters, f"with {kind}", change)
    service = make_service()
    expected = offline.scores({"general": 1.0}, None, ["x01"], CANDIDATES)

    async def scenario(client: httpx2.AsyncClient) -> None:
        listed = (await client.get("/v1/adapters")).json()
        assert [one["name"] for one in listed["loaded"]] == ["general", "listed", "listed2", "specific"]
        for kind in HOSTILE:
            assert f"with {kind}" in listed["available"]
            answer = await client.post("/v1/adapters", json={"name": f"with {kind}"})
            assert answer.status_code == 422, kind
            message = answer.json()["errors"][0]["message"]
            assert message.startswith(f"adapter with {kind} cannot be loaded: ")
            assert len(message) < 700, message
            assert not any(secret in message for secret in ("\n", "S3CRET", "root:", str(adapters)))
        np.testing.assert_allclose(await scores(client, "general"), expected, atol=1e-4)

    play(service, scenario)


def test_odd_names_and_links_do_not_break_the_list(
    make_service: Callable[..., Service], adapters: Path, play: Any
) -> None:
    (adapters / "circle").symlink_to("circle")
    (adapters / "nowhere").symlink_to("/nowhere")
    (adapters / "linked").symlink_to(adapters / "general")
    (adapters / "file").write_text("")
    os.mkdir(os.fsencode(adapters) + b"/\xff\xfe")
    for name in ("line\nbreak", "\x1b[31m", "näme", "a b"):
        copy_of(adapters, name, lambda _: None)
    for name in (ADAPTER_CONFIG_FILE, "user_router.json"):
        (adapters / f"only {name}").mkdir()
        (adapters / f"only {name}" / name).symlink_to(name)

    async def scenario(client: httpx2.AsyncClient) -> None:
        listed = (await client.get("/v1/adapters")).json()
        usual = ["general", "linked", "listed", "listed2", "specific"]
        assert listed["available"] == sorted([*usual, "a b", "näme"])
        assert sorted(one["name"] for one in listed["loaded"]) == listed["available"]

    play(make_service(), scenario)


def test_an_own_template_is_read_when_loaded(make_service: Callable[..., Service], adapters: Path, play: Any) -> None:
    text = "{% for title in history %}{{ title }}, {% endfor %}next {{ candidate }}?"
    copy_of(adapters, "own", with_template(text))
    copy_of(adapters, "same", with_options(template="/home/someone/own.j2"))
    (adapters / "same" / "own.j2").write_text(text)
    service = make_service(load=["own", "same"])

    async def scenario(client: httpx2.AsyncClient) -> None:
        before = await scores(client, {"own": 0.5, "same": 0.5})
        (adapters / "own" / "own.j2").write_text("Another text: {{ candidate }}")
        np.testing.assert_array_equal(await scores(client, {"own": 0.5, "same": 0.5}), before)
        assert (await client.post("/v1/adapters", json={"name": "own"})).status_code == 200
        assert np.abs(await scores(client, "own") - await scores(client, "same")).max() > 1e-3
        answer = await client.post("/v1/rank", json=body({"own": 0.5, "same": 0.5}))
        assert answer.status_code == 422
        assert "different values of template" in answer.json()["detail"]

    play(service, scenario)
