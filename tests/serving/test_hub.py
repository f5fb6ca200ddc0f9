"""The service with adapters of the hub."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset, load_split
from lorarec.errors import LorarecError
from lorarec.lora import read_adapter
from lorarec.personal import UserRouterConfig, push_personal_adapters, train_user_router
from lorarec.ranking import Ranker
from lorarec.serving.service import Service
from tests import factories
from tests.command_line import run
from tests.hub_server import Hub


def test_the_service_loads_adapters_by_hub_id_and_new_commits_by_name(
    hub: Hub, tmp_path: Path, started: Callable[..., AbstractContextManager[Any]]
) -> None:
    models = factories.write_models(tmp_path)
    factories.push_models(models)
    backbone = Backbone.from_pretrained(models / "tiny")
    dataset = Dataset.load("hub:me/shop")
    items = list(dataset.titles)[:4]
    body = {"history": items[:1], "candidates": items[1:], "adapter": "mine"}

    def expected(adapter: str) -> np.ndarray:
        with Ranker(backbone, models / adapter) as ranker:
            return ranker.score_titles([[dataset.titles[items[0]]]], [[dataset.titles[each] for each in items[1:]]])[0]

    def scores(client: httpx2.Client) -> np.ndarray:
        answer = client.post("/v1/rank", json=body).json()
        return np.array([each["score"] for each in sorted(answer["ranking"], key=lambda each: each["candidate"])])

    options = [
        "hub:me/shop",
        "--adapters",
        "mine=me/specific",
        "--adapters",
        "me/general",
        "--adapters",
        f"here={models / 'general'}",
        "--backbone",
        "me/tiny",
    ]
    with (
        started([*options, "--db", str(tmp_path / "histories.db")]) as [process],
        httpx2.Client(base_url=process.url) as client,
    ):
        assert client.get("/v1/adapters").json()["available"] == ["general", "here", "mine"]
        np.testing.assert_allclose(scores(client), expected("specific"), atol=1e-4)
        read_adapter(models / "general").push_to_hub("me/specific", base_model="me/tiny")
        assert client.post("/v1/adapters", json={"name": "mine"}).status_code == 200
        np.testing.assert_allclose(scores(client), expected("general"), atol=1e-4)
        # The repository has the new commit by now, and the service the former one in memory.
        assert client.post("/v1/adapters/mine/rollback").status_code == 200
        np.testing.assert_allclose(scores(client), expected("specific"), atol=1e-4)
        assert client.post("/v1/adapters", json={"name": "me/general"}).status_code == 404


def test_names_of_the_hub_and_of_the_folder_must_differ(
    hub: Hub, adapters: Path, tiny_backbone: Backbone, shop: Dataset, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path / 'histories.db'}"
    with pytest.raises(LorarecError, match=r"me/general and .*/adapters/general have the same name"):
        Service(tiny_backbone, shop, adapters, database, further_adapters={"general": "me/general"})


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        (["me/none"], "adapter me/none: there is no such folder, and the hub has no model of this name"),
        (["../none"], "adapters folder ../none does not exist: give a folder of PEFT folders, or a hub id"),
        (["me/general", "you=me/general", "you=me/general@main"], "two adapters are called you: tell them apart"),
        (["a", "b"], "--adapters b is a second folder: move its adapters to a"),
    ],
)
def test_adapters_that_are_refused(
    hub: Hub,
    shop: Dataset,
    tiny_backbone: Backbone,
    write_adapter: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    adapters: list[str],
    message: str,
) -> None:
    read_adapter(write_adapter(tiny_backbone.model, tmp_path / "general", 0)).push_to_hub(
        "me/general", base_model="me/b"
    )
    shop.save(tmp_path / "shop")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LorarecError, match=message):
        run("serve", "shop", *(word for each in adapters for word in ("--adapters", each)))


def test_the_service_loads_personal_adapters_by_hub_id(
    hub: Hub, tmp_path: Path, started: Callable[..., AbstractContextManager[Any]]
) -> None:
    models = factories.write_models(tmp_path)
    factories.push_models(models)
    backbone, dataset = Backbone.from_pretrained(models / "tiny"), Dataset.load(models / "shop")
    parts, config = [models / "general", models / "specific"], UserRouterConfig(epochs=1, cases=12)
    train_user_router(
        backbone, parts, dataset, load_split(dataset), models / "adapters" / "chosen", config, ctr_model="titles"
    )
    push_personal_adapters(models / "adapters" / "chosen", "me/chosen", base_model="me/tiny")
    items = list(dataset.titles)[:4]
    body = {"user_id": "u001", "candidates": items[1:]}
    options = ["--adapters", str(models / "adapters"), "--adapters", "mine=me/chosen", "--backbone", "me/tiny"]
    with (
        started(["hub:me/shop", *options, "--db", str(tmp_path / "histories.db")]) as [process],
        httpx2.Client(base_url=process.url) as client,
    ):
        listed = client.get("/v1/adapters").json()
        assert listed["kinds"] == {"chosen": "personal", "mine": "personal"}
        answers = [client.post("/v1/rank", json={**body, "adapter": name}) for name in ("mine", "chosen")]
        assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
        assert answers[0].json()["ranking"] == answers[1].json()["ranking"]
