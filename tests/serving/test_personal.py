"""Personal adapters: mixtures of several users in one batch get the offline scores."""

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
from lorarec.data.cooccurrence import dataset_cooccurrence
from lorarec.errors import LorarecError
from lorarec.io.artefacts import read_json, write_json
from lorarec.personal import PersonalLora, UserHistory, UserRouter
from lorarec.personal.scoring import user_scores
from lorarec.prompts import PromptBuilder, PromptConfig, case_examples
from lorarec.serving.config import ServiceConfig
from lorarec.serving.service import Service

EVIDENT = {"readout": "verdict", "options": {"evidence": True, "max_history": 4}}
LISTED = {"readout": "likelihood", "options": {}}
CANDIDATES = ["x02", "x05", "x29"]


class RatedShop:
    """A shop with ratings, a folder of adapters with a user router over two of them, and offline scores."""

    def __init__(self, backbone: Backbone, dataset: Dataset, folder: Path) -> None:
        self.backbone = backbone
        self.dataset = dataset
        self.folder = folder
        self.router = UserRouter.load(folder / "chosen", backbone, dataset)

    def history(self, user: str) -> UserHistory:
        rows = self.dataset.interactions.filter(user_id=user)
        return UserHistory(user, rows["item_id"].to_list(), rows["timestamp"].to_list())

    def scores(
        self, weights: torch.Tensor, user: str | None, history: Sequence[str], candidates: Sequence[str]
    ) -> np.ndarray:
        """Score item ids offline under weights (layers, K) of the router's parts."""
        config = PromptConfig(template="verdict-v1", **EVIDENT["options"])  # a record without a version is of 0.1.0
        lengths = (config.max_tokens, config.max_title_tokens)
        builder = PromptBuilder(self.backbone.tokenizer, config.readout, config.template, *lengths)
        columns = {"user_id": [user], "history": [list(history)[-4:]], "candidates": [list(candidates)]}
        cases = pl.DataFrame(columns, schema_overrides={"user_id": pl.String, "history": pl.List(pl.String)})
        examples = case_examples(cases, self.dataset.titles, builder, 4, dataset_cooccurrence(self.dataset))
        with PersonalLora.load(self.folder / "chosen" / "personal", self.backbone) as personal:
            return user_scores(personal, examples, lambda _: weights[:, None], builder)[0]


@pytest.fixture(scope="module")
def rated_shop(
    shared_backbone: Backbone,
    write_adapter: Callable[..., Path],
    write_user_router: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> RatedShop:
    """30 users with a few of 30 items each; the router's weights differ by user."""
    base = tmp_path_factory.mktemp("rated_shop")
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
    write_user_router(shared_backbone, folder / "chosen", parts, dataset, split, ctr_model="din", cases=12)
    return RatedShop(shared_backbone, dataset, folder)


@pytest.fixture
def adapters(rated_shop: RatedShop, tmp_path: Path) -> Path:
    """A copy of the adapters folder, which a test may change."""
    return Path(shutil.copytree(rated_shop.folder, tmp_path / "adapters"))


@pytest.fixture
def make_service(rated_shop: RatedShop, adapters: Path, tmp_path: Path) -> Callable[..., Service]:
    """A service over the rated shop."""

    def make(load: Sequence[str] | None = None, **options: Any) -> Service:
        backbone = replace(rated_shop.backbone, model=copy.deepcopy(rated_shop.backbone.model))
        database = f"sqlite:///{tmp_path / 'histories.db'}"
        config = ServiceConfig(**{"wait_ms": 50, **options})
        return Service(backbone, rated_shop.dataset, adapters, database, config, load=load)

    return make


def body(adapter: Any = "chosen", **changes: Any) -> dict[str, Any]:
    return {"user_id": "u03", "candidates": CANDIDATES, "adapter": adapter, **changes}


async def rank(client: httpx2.AsyncClient, sent: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the scores in the order of the candidates, and the whole response."""
    answer = await client.post("/v1/rank", json=sent)
    assert answer.status_code == 200, answer.text
    found = {item["candidate"]: item["score"] for item in answer.json()["ranking"]}
    return np.array([found[place] for place in range(len(found))]), answer.json()


def reported_weights(answer: dict[str, Any], name: str = "chosen") -> torch.Tensor:
    """Return the weights (layers, K) in a response."""
    return torch.tensor(list(answer["personal"][name]["layers"].values()))


@pytest.mark.parametrize("token_budget", [8192, 1])
def test_users_share_a_batch_with_everyone_and_get_the_offline_scores(
    make_service: Callable[..., Service], rated_shop: RatedShop, play: Any, token_budget: int
) -> None:
    service = make_service(token_budget=token_budget, wait_ms=300)  # long enough for all, whatever else is running
    mean, layers = rated_shop.router.weights(None), len(rated_shop.router.layers)
    requests, expected = [], []
    for number in range(16):
        user = f"u{number:02}"
        past, candidates = rated_shop.history(user), [f"x{(number + 5 * k) % 30:02}" for k in range(2 + number % 3)]
        own, share = rated_shop.router.weights(past), number / 16
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
        expected.append(rated_shop.scores(weights, whose.get("user_id"), past.items, candidates))

    async def scenario(client: httpx2.AsyncClient) -> list[tuple[np.ndarray, dict[str, Any]]]:
        return await asyncio.gather(*(rank(client, sent) for sent in requests))

    for (found, _), scores in zip(play(service, scenario), expected, strict=True):
        np.testing.assert_allclose(found, scores, atol=1e-5)
    sizes = {s.name: s.value for m in service.metrics.batch_size.collect() for s in m.samples if not s.labels}
    batches = sizes["lorarec_batch_size_count"]
    assert (batches < 8) if token_budget > 1 else (batches == 16)


def test_responses_hold_the_weights_by_layer(
    make_service: Callable[..., Service], rated_shop: RatedShop, play: Any
) -> None:
    service = make_service()

    async def scenario(client: httpx2.AsyncClient) -> None:
        for user in ("u03", "u04"):
            _, answer = await rank(client, body(user_id=user))
            assert answer["mixture"] == {"chosen": 1.0}
            personal = answer["personal"]["chosen"]
            assert (personal["routed"], personal["parts"]) == (True, ["general", "specific"])
            assert list(personal["layers"]) == list(rated_shop.router.layers)
            torch.testing.assert_close(reported_weights(answer), rated_shop.router.weights(rated_shop.history(user)))
            recommended = await client.post("/v1/recommend", json={"user_id": user, "adapter": "chosen", "top": 3})
            assert recommended.json()["personal"] == answer["personal"]
            assert len(recommended.json()["ranking"]) == 3
        _, mean = await rank(client, body(user_id=None, history=["x01"]))
        assert not mean["personal"]["chosen"]["routed"]
        torch.testing.assert_close(reported_weights(mean), rated_shop.router.weights(None))
        _, plain = await rank(client, body("general"))
        assert plain["personal"] == {}

    play(service, scenario)
    different = rated_shop.router.weights(rated_shop.history("u03")) - rated_shop.router.weights(
        rated_shop.history("u04")
    )
    assert different.abs().max() > 0.01


def test_events_change_the_weights_of_their_user_alone(
    make_service: Callable[..., Service], rated_shop: RatedShop, play: Any
) -> None:
    service = make_service()

    async def scenario(client: httpx2.AsyncClient) -> None:
        events = [{"user_id": "u03", "item_id": item, "timestamp": 900} for item in ("x07", "x08")]
        await client.post("/v1/events", json={"events": events})
        past = rated_shop.history("u03")
        after = UserHistory("u03", [*past.items, "x07", "x08"], [*past.times, 900, 900])
        own = rated_shop.router.weights(after)
        assert (own - rated_shop.router.weights(past)).abs().max() > 1e-3
        scores, answer = await rank(client, body())
        torch.testing.assert_close(reported_weights(answer), own)
        np.testing.assert_allclose(scores, rated_shop.scores(own, "u03", after.items, CANDIDATES), atol=1e-5)
        other = reported_weights((await rank(client, body(user_id="u04")))[1])
        torch.testing.assert_close(other, rated_shop.router.weights(rated_shop.history("u04")))
        await client.post("/v1/events", json={"events": [{"user_id": "new", "item_id": "x03", "timestamp": 5}]})
        _, answer = await rank(client, body(user_id="new"))
        torch.testing.assert_close(
            reported_weights(answer), rated_shop.router.weights(UserHistory("new", ["x03"], [5]))
        )

    play(service, scenario)


@pytest.mark.parametrize("adapter", ["chosen", "general", {"chosen": 0.5, "specific": 0.5}])
def test_a_history_with_timestamps_is_answered_like_stored_events(
    make_service: Callable[..., Service], rated_shop: RatedShop, play: Any, adapter: Any
) -> None:
    times = {"x07": 900, "x08": 30, "x11": 900, "x02": 31, "x14": -5}
    events = [{"item_id": item, "timestamp": time} for item, time in times.items()]
    ordered = UserHistory("new", ["x14", "x08", "x02", "x07", "x11"], [-5, 30, 31, 900, 900])

    async def scenario(client: httpx2.AsyncClient) -> None:
        stored = await client.post("/v1/events", json={"events": [{"user_id": "new"} | each for each in events]})
        assert stored.json()["stored"] == 5
        ranked = {"candidates": ["x03", "x05", "x29"]}
        for path, fields in (("rank", ranked), ("recommend", {"top": 4}), ("explain", {"item_id": "x05"})):
            sent = {"adapter": adapter, **fields}
            answers = [
                (await client.post(f"/v1/{path}", json=sent | whose)).raise_for_status().json()
                for whose in ({"user_id": "new"}, {"history": events})
            ]
            assert answers[0] == answers[1]
            if adapter == "chosen":
                torch.testing.assert_close(reported_weights(answers[1]), rated_shop.router.weights(ordered))
            if path == "explain":
                assert [each["item_id"] for each in answers[1]["history"]] == list(ordered.items)[-4:]
        # The router reads a title as an item that the dataset does not have.
        titled = {"history": [*events, {"title": "red lamp 3", "timestamp": 40}], "candidates": CANDIDATES}
        _, answer = await rank(client, titled | {"adapter": "chosen"})
        unseen = UserHistory("new", [*ordered.items[:3], "unseen", "x07", "x11"], [-5, 30, 31, 40, 900, 900])
        torch.testing.assert_close(reported_weights(answer), rated_shop.router.weights(unseen))

    play(make_service(), scenario)


def test_explanations_keep_the_mixture_of_the_whole_history(
    make_service: Callable[..., Service], rated_shop: RatedShop, play: Any
) -> None:
    past = rated_shop.history("u03")
    own = rated_shop.router.weights(past)
    whole = rated_shop.scores(own, "u03", past.items, CANDIDATES)[1]
    shown = past.items[-4:]
    rest = [[*past.items[:-4], *(other for other in shown if other != item)] for item in shown]
    expected = [whole - rated_shop.scores(own, "u03", history, CANDIDATES)[1] for history in rest]

    async def scenario(client: httpx2.AsyncClient) -> None:
        found = (await client.post("/v1/explain", json=body(candidate=1))).json()
        assert [item["item_id"] for item in found["history"]] == shown
        np.testing.assert_allclose([item["score"] for item in found["history"]], expected, atol=2e-5)
        torch.testing.assert_close(reported_weights(found), own)

    play(make_service(), scenario)


def test_list_load_reload_and_unload(
    make_service: Callable[..., Service], rated_shop: RatedShop, adapters: Path, randomize_router: Any, play: Any
) -> None:
    service = make_service(load=["listed"])

    async def scenario(client: httpx2.AsyncClient) -> None:
        listed = (await client.get("/v1/adapters")).json()
        kinds = {"chosen": "personal", "general": "adapter", "listed": "adapter", "specific": "adapter"}
        assert (listed["available"], listed["kinds"]) == (list(kinds), kinds)
        loaded = (await client.post("/v1/adapters", json={"name": "chosen"})).json()
        assert (loaded["kind"], loaded["rank"], loaded["readout"]) == ("personal", 3, "verdict")
        assert loaded["fingerprint"] == rated_shop.router.fingerprint
        details = (await client.get("/v1/adapters/chosen")).json()
        assert details["user_id"] is None
        mean = [[layer["weights"][name] for name in ("general", "specific")] for layer in details["layers"]]
        torch.testing.assert_close(torch.tensor(mean), rated_shop.router.weights(None))
        before, _ = await rank(client, body())
        for name in ("general", "specific"):  # the router's parts are there already
            await client.post("/v1/adapters", json={"name": name})
        assert len(service._engine._stacked) == 3
        np.testing.assert_allclose((await rank(client, body()))[0], before, atol=1e-5)
        randomize_router(adapters / "chosen", 1)
        reloaded = (await client.post("/v1/adapters", json={"name": "chosen"})).json()
        assert reloaded["fingerprint"] != loaded["fingerprint"]
        _, answer = await rank(client, body())
        own = UserRouter.load(adapters / "chosen", rated_shop.backbone, rated_shop.dataset).weights(
            rated_shop.history("u03")
        )
        torch.testing.assert_close(reported_weights(answer), own)
        for name in ("general", "specific"):
            await client.delete(f"/v1/adapters/{name}")
        scores, _ = await rank(client, body())
        history = rated_shop.history("u03").items
        np.testing.assert_allclose(scores, rated_shop.scores(own, "u03", history, CANDIDATES), atol=1e-5)
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
        lambda folder: _edit(
            folder / "user_router.json", lambda record: record["datasets"][0].update(fingerprint="f0")
        ),
        "is for the users of dataset shop (f0), not of shop",
    ),
    "cut": (
        lambda folder: (folder / "personal" / "personal.safetensors").open("r+b").truncate(100),
        "personal/personal.safetensors is corrupted",
    ),
    "no weights": (lambda folder: (folder / "personal" / "personal.safetensors").unlink(), "does not exist"),
    "no recommender": (lambda folder: shutil.rmtree(folder / "crm"), "crm"),
    "no record": (lambda folder: (folder / "user_router.json").write_text("{}"), "damaged"),
    "a pickle": (
        lambda folder: (folder / "crm" / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n"),
        "does not hold the weights of a din",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_folder_leaves_what_is_in_memory(
    make_service: Callable[..., Service], rated_shop: RatedShop, adapters: Path, play: Any, fault: str
) -> None:
    service = make_service()

    async def scenario(client: httpx2.AsyncClient) -> None:
        before, _ = await rank(client, body())
        FAULTS[fault][0](adapters / "chosen")
        answer = await client.post("/v1/adapters", json={"name": "chosen"})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "name")
        message = answer.json()["errors"][0]["message"]
        assert message.startswith("adapter chosen cannot be loaded: ")
        assert message.endswith("; the version in memory stays in use")
        assert FAULTS[fault][1] in message
        assert "\n" not in message
        assert not any(path in message for path in (str(adapters), str(rated_shop.folder.parent), "/home", "/tmp"))
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
