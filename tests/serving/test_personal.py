"""Personal adapters: every user's own mixture in a batch with everyone else's requests, as offline."""

import asyncio
import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import polars as pl
import pytest
import torch

from lorarec.backbone import Backbone
from lorarec.data import Dataset, leave_one_out
from lorarec.errors import LorarecError
from lorarec.io.artefacts import read_json, write_json
from lorarec.lora.prompt_record import prompt_config
from lorarec.personal import PersonalLora, UserHistory, UserRouter
from lorarec.personal.scoring import user_scores
from lorarec.prompts import PromptBuilder, case_examples
from lorarec.ranking.recommendation import whole_evidence
from lorarec.serving.config import ServiceConfig
from lorarec.serving.service import Service

EVIDENT = {"readout": "verdict", "options": {"evidence": True, "max_history": 4}}
LISTED = {"readout": "likelihood", "options": {}}
CANDIDATES = ["x02", "x05", "x29"]


class Ground:
    """A rated shop, a folder of adapters with a chooser over two of them, and what they score offline."""

    def __init__(self, backbone: Backbone, dataset: Dataset, folder: Path) -> None:
        self.backbone = backbone
        self.dataset = dataset
        self.folder = folder
        self.chooser = UserRouter.load(folder / "chosen", backbone, dataset)

    def past(self, user: str) -> UserHistory:
        rows = self.dataset.interactions.filter(user_id=user)
        return UserHistory(user, rows["item_id"].to_list(), rows["timestamp"].to_list())

    def scores(
        self, weights: torch.Tensor, user: str | None, history: Sequence[str], candidates: Sequence[str]
    ) -> np.ndarray:
        """Of item ids under weights (layers, K) of the chooser's parts, as users are scored offline."""
        config = replace(prompt_config(self.chooser.adapters[0]), **EVIDENT["options"])
        lengths = (config.max_tokens, config.max_title_tokens)
        builder = PromptBuilder(self.backbone.tokenizer, config.readout, config.template, *lengths)
        columns = {"user_id": [user], "history": [list(history)[-4:]], "candidates": [list(candidates)]}
        cases = pl.DataFrame(columns, schema_overrides={"user_id": pl.String, "history": pl.List(pl.String)})
        examples = case_examples(cases, self.dataset.titles, builder, 4, whole_evidence(self.dataset))
        with PersonalLora.load(self.folder / "chosen" / "personal", self.backbone) as personal:
            return user_scores(personal, examples, lambda _: weights[:, None], builder)[0]


@pytest.fixture(scope="module")
def ground(
    shared_backbone: Backbone,
    write_adapter: Callable[..., Path],
    write_chooser: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Ground:
    """30 users with a few of 30 items each; the chooser's router tells them apart."""
    base = tmp_path_factory.mktemp("ground")
    events = [k for k in range(240) if k % 5 and k % 7]
    rows = [(f"u{k // 8:02}", f"x{(k * 7 + k // 8) % 29:02}", k, 1.0 + (k * k) % 7 % 5) for k in events]
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
    interactions = pl.DataFrame(rows, schema=schema, orient="row")
    items = pl.DataFrame({"item_id": [f"x{k:02}" for k in range(30)], "title": [f"red lamp {k}" for k in range(30)]})
    dataset = Dataset.from_frames("shop", interactions, items).save(base / "shop")
    split = leave_one_out(dataset, new_items=0, negatives=3)
    split.save(base / "shop" / "split")
    folder = base / "adapters"
    for seed, (name, meta) in enumerate([("general", EVIDENT), ("specific", EVIDENT), ("listed", LISTED)]):
        write_adapter(shared_backbone.model, folder / name, seed, meta)
    parts = ("general", "specific")
    write_chooser(shared_backbone, folder / "chosen", parts, dataset, split, ctr_model="din", cases=12)
    return Ground(shared_backbone, dataset, folder)


@pytest.fixture
def adapters(ground: Ground, tmp_path: Path) -> Path:
    """A copy of the folder, to change at will."""
    return Path(shutil.copytree(ground.folder, tmp_path / "adapters"))


@pytest.fixture
def make_service(ground: Ground, adapters: Path, tmp_path: Path) -> Callable[..., Service]:
    """A service over the rated shop."""

    def make(load: Sequence[str] | None = None, **options: Any) -> Service:
        backbone = replace(ground.backbone, model=copy.deepcopy(ground.backbone.model))
        database = f"sqlite:///{tmp_path / 'histories.db'}"
        config = ServiceConfig(**{"wait_ms": 50, **options})
        return Service(backbone, ground.dataset, adapters, database, config, load=load)

    return make


def body(adapter: Any = "chosen", **changes: Any) -> dict[str, Any]:
    return {"user_id": "u03", "candidates": CANDIDATES, "adapter": adapter, **changes}


async def rank(client: httpx2.AsyncClient, sent: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Scores in the order of the candidates, and the whole answer."""
    answer = await client.post("/v1/rank", json=sent)
    assert answer.status_code == 200, answer.text
    found = {item["candidate"]: item["score"] for item in answer.json()["ranking"]}
    return np.array([found[place] for place in range(len(found))]), answer.json()


def told(answer: dict[str, Any], name: str = "chosen") -> torch.Tensor:
    """The weights (layers, K) that an answer tells."""
    return torch.tensor(list(answer["personal"][name]["layers"].values()))


@pytest.mark.parametrize("token_budget", [8192, 1])
def test_users_share_a_batch_with_everyone_and_get_the_offline_scores(
    make_service: Callable[..., Service], ground: Ground, play: Any, token_budget: int
) -> None:
    service = make_service(token_budget=token_budget, wait_ms=300)  # long enough for all, whatever else is running
    mean, layers = ground.chooser.weights(None), len(ground.chooser.layers)
    requests, expected = [], []
    for number in range(16):
        user = f"u{number:02}"
        past, candidates = ground.past(user), [f"x{(number + 5 * k) % 30:02}" for k in range(2 + number % 3)]
        own, share = ground.chooser.weights(past), number / 16
        constant = torch.tensor([1 - share, share]).expand(layers, 2)
        whose: dict[str, Any] = {"user_id": user}
        adapter, weights = [
            ("chosen", own),
            ({"general": 1 - share, "specific": share}, constant),
            ({"chosen": 0.5, "specific": 0.5}, 0.5 * own + 0.5 * torch.tensor([0.0, 1.0])),
            ("chosen", mean),
        ][number % 4]
        if number % 4 == 3:
            whose = {"history": past.items}
        requests.append({**whose, "candidates": candidates, "adapter": adapter})
        expected.append(ground.scores(weights, whose.get("user_id"), past.items, candidates))

    async def scenario(client: httpx2.AsyncClient) -> list[tuple[np.ndarray, dict[str, Any]]]:
        return await asyncio.gather(*(rank(client, sent) for sent in requests))

    for (found, _), scores in zip(play(service, scenario), expected, strict=True):
        np.testing.assert_allclose(found, scores, atol=1e-5)
    sizes = {s.name: s.value for m in service.metrics.batch_size.collect() for s in m.samples if not s.labels}
    batches = sizes["lorarec_batch_size_count"]
    assert (batches < 8) if token_budget > 1 else (batches == 16)


def test_answers_tell_the_weights_by_layer(make_service: Callable[..., Service], ground: Ground, play: Any) -> None:
    service = make_service()

    async def scenario(client: httpx2.AsyncClient) -> None:
        for user in ("u03", "u04"):
            _, answer = await rank(client, body(user_id=user))
            assert answer["mixture"] == {"chosen": 1.0}
            personal = answer["personal"]["chosen"]
            assert (personal["routed"], personal["parts"]) == (True, ["general", "specific"])
            assert list(personal["layers"]) == list(ground.chooser.layers)
            torch.testing.assert_close(told(answer), ground.chooser.weights(ground.past(user)))
            recommended = await client.post("/v1/recommend", json={"user_id": user, "adapter": "chosen", "top": 3})
            assert recommended.json()["personal"] == answer["personal"]
            assert len(recommended.json()["ranking"]) == 3
        _, mean = await rank(client, body(user_id=None, history=["x01"]))
        assert not mean["personal"]["chosen"]["routed"]
        torch.testing.assert_close(told(mean), ground.chooser.weights(None))
        _, plain = await rank(client, body("general"))
        assert plain["personal"] == {}

    play(service, scenario)
    different = ground.chooser.weights(ground.past("u03")) - ground.chooser.weights(ground.past("u04"))
    assert different.abs().max() > 0.01


def test_events_change_the_weights_of_their_user_alone(
    make_service: Callable[..., Service], ground: Ground, play: Any
) -> None:
    service = make_service()

    async def scenario(client: httpx2.AsyncClient) -> None:
        events = [{"user_id": "u03", "item_id": item, "timestamp": 900} for item in ("x07", "x08")]
        await client.post("/v1/events", json={"events": events})
        past = ground.past("u03")
        after = UserHistory("u03", [*past.items, "x07", "x08"], [*past.times, 900, 900])
        own = ground.chooser.weights(after)
        assert (own - ground.chooser.weights(past)).abs().max() > 1e-3
        scores, answer = await rank(client, body())
        torch.testing.assert_close(told(answer), own)
        np.testing.assert_allclose(scores, ground.scores(own, "u03", after.items, CANDIDATES), atol=1e-5)
        other = told((await rank(client, body(user_id="u04")))[1])
        torch.testing.assert_close(other, ground.chooser.weights(ground.past("u04")))
        await client.post("/v1/events", json={"events": [{"user_id": "new", "item_id": "x03", "timestamp": 5}]})
        _, answer = await rank(client, body(user_id="new"))
        torch.testing.assert_close(told(answer), ground.chooser.weights(UserHistory("new", ["x03"], [5])))

    play(service, scenario)


def test_explanations_keep_the_mixture_of_the_whole_history(
    make_service: Callable[..., Service], ground: Ground, play: Any
) -> None:
    past = ground.past("u03")
    own = ground.chooser.weights(past)
    whole = ground.scores(own, "u03", past.items, CANDIDATES)[1]
    shown = past.items[-4:]
    rest = [[*past.items[:-4], *(other for other in shown if other != item)] for item in shown]
    expected = [whole - ground.scores(own, "u03", history, CANDIDATES)[1] for history in rest]

    async def scenario(client: httpx2.AsyncClient) -> None:
        found = (await client.post("/v1/explain", json=body(candidate=1))).json()
        assert [item["item_id"] for item in found["history"]] == shown
        np.testing.assert_allclose([item["score"] for item in found["history"]], expected, atol=2e-5)
        torch.testing.assert_close(told(found), own)

    play(make_service(), scenario)


def test_list_load_reload_and_unload(
    make_service: Callable[..., Service], ground: Ground, adapters: Path, stir: Any, play: Any
) -> None:
    service = make_service(load=["listed"])

    async def scenario(client: httpx2.AsyncClient) -> None:
        listed = (await client.get("/v1/adapters")).json()
        kinds = {"chosen": "personal", "general": "adapter", "listed": "adapter", "specific": "adapter"}
        assert (listed["available"], listed["kinds"]) == (list(kinds), kinds)
        loaded = (await client.post("/v1/adapters", json={"name": "chosen"})).json()
        assert (loaded["kind"], loaded["rank"], loaded["readout"]) == ("personal", 3, "verdict")
        assert loaded["fingerprint"] == ground.chooser.fingerprint
        details = (await client.get("/v1/adapters/chosen")).json()
        assert details["user_id"] is None
        mean = [[layer["weights"][name] for name in ("general", "specific")] for layer in details["layers"]]
        torch.testing.assert_close(torch.tensor(mean), ground.chooser.weights(None))
        before, _ = await rank(client, body())
        for name in ("general", "specific"):  # the chooser's parts are there already
            await client.post("/v1/adapters", json={"name": name})
        assert len(service._engine._stacked) == 3
        np.testing.assert_allclose((await rank(client, body()))[0], before, atol=1e-5)
        stir(adapters / "chosen", 1)
        reloaded = (await client.post("/v1/adapters", json={"name": "chosen"})).json()
        assert reloaded["fingerprint"] != loaded["fingerprint"]
        _, answer = await rank(client, body())
        own = UserRouter.load(adapters / "chosen", ground.backbone, ground.dataset).weights(ground.past("u03"))
        torch.testing.assert_close(told(answer), own)
        for name in ("general", "specific"):
            await client.delete(f"/v1/adapters/{name}")
        scores, _ = await rank(client, body())
        history = ground.past("u03").items
        np.testing.assert_allclose(scores, ground.scores(own, "u03", history, CANDIDATES), atol=1e-5)
        assert (await client.delete("/v1/adapters/chosen")).status_code == 204
        assert (await client.post("/v1/rank", json=body())).status_code == 404
        mixed = await client.post("/v1/rank", json=body({"chosen": 0.5, "listed": 0.5}))
        assert mixed.status_code == 404

    play(service, scenario)


def _edit(path: Path, change: Callable[[Any], Any]) -> None:
    value = read_json(path)
    change(value)
    write_json(path, value)


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "backbone": (
        lambda folder: _edit(
            folder / "personal" / "personal.json",
            lambda meta: meta.update(backbone={"id": "/home/someone/models/big", "fingerprint": "f0"}),
        ),
        "belongs to backbone big",
    ),
    "dataset": (
        lambda folder: _edit(folder / "choose.json", lambda record: record["datasets"][0].update(fingerprint="f0")),
        "is for the users of dataset shop (f0), not of shop",
    ),
    "cut": (
        lambda folder: (folder / "personal" / "personal.safetensors").open("r+b").truncate(100),
        "personal/personal.safetensors is corrupted",
    ),
    "no weights": (lambda folder: (folder / "personal" / "personal.safetensors").unlink(), "does not exist"),
    "no recommender": (lambda folder: shutil.rmtree(folder / "crm"), "crm"),
    "no record": (lambda folder: (folder / "choose.json").write_text("{}"), "damaged"),
    "a pickle": (
        lambda folder: (folder / "crm" / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n"),
        "does not hold the weights of a din",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_folder_leaves_what_is_in_memory(
    make_service: Callable[..., Service], ground: Ground, adapters: Path, play: Any, fault: str
) -> None:
    service = make_service()

    async def scenario(client: httpx2.AsyncClient) -> None:
        before, _ = await rank(client, body())
        FAULTS[fault][0](adapters / "chosen")
        answer = await client.post("/v1/adapters", json={"name": "chosen"})
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, "name")
        message = answer.json()["error"]["message"]
        assert message.startswith("adapter chosen cannot be loaded: ")
        assert message.endswith("; the version in memory stays in use")
        assert FAULTS[fault][1] in message
        assert "\n" not in message
        assert not any(path in message for path in (str(adapters), str(ground.folder.parent), "/home", "/tmp"))
        assert (await client.post("/v1/adapters", json={"name": "general"})).status_code == 200
        np.testing.assert_allclose((await rank(client, body()))[0], before, atol=1e-5)

    play(service, scenario)


def test_another_rule_is_refused(make_service: Callable[..., Service], play: Any) -> None:
    with pytest.raises(LorarecError, match=r"chosen was trained with combine=factors.*with combine=factors"):
        make_service(combine="deltas", load=["chosen"])
    assert "chosen" not in make_service(combine="deltas").adapters.loaded
    service = make_service(combine="deltas", load=["general"])

    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/adapters", json={"name": "chosen"})
        assert answer.status_code == 422
        await rank(client, body("general"))

    play(service, scenario)
