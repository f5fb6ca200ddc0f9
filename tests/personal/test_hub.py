"""Personal adapters on the hub: what is pushed is loaded by its id and gives the same adapters."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from lorarec.backbone import Backbone
from lorarec.data import Dataset, load_split
from lorarec.errors import LorarecError
from lorarec.io.artefacts import read_json
from lorarec.lora import read_adapter, same_tensors
from lorarec.personal import (
    PersonalizationConfig,
    UserHistory,
    UserRouter,
    UserRouterConfig,
    export_user,
    personalize,
    push_personal_adapters,
    recorded_backbone_id,
    train_user_router,
)
from tests import factories
from tests.command_line import run
from tests.hub_server import Hub

CONFIG = PersonalizationConfig(samples=32, epochs=1, num_meta_loras=2, r=2, test_events=32)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny backbone of a folder."""
    folder = tmp_path_factory.mktemp("backbone") / "tiny"
    return Backbone.from_pretrained(factories.save_backbone(factories.hot_backbone(), folder))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The dataset of the user routers, with its split."""
    dataset, split = factories.hot_log()
    saved = dataset.save(tmp_path_factory.mktemp("data") / "shop")
    split.save(saved.folder / "split")
    return saved


@pytest.fixture(scope="module")
def personal(backbone: Backbone, taste: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `personalize`."""
    return personalize(
        backbone, taste, tmp_path_factory.mktemp("personal") / "taste", CONFIG, ctr_model="deepfm"
    ).folder


@pytest.fixture(scope="module")
def chosen(backbone: Backbone, shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `train_user_router`."""
    folder = tmp_path_factory.mktemp("chosen")
    parts = [factories.write_peft_adapter(backbone.model, folder / name, seed, {}) for seed, name in enumerate("ab")]
    config = UserRouterConfig(epochs=1, cases=12)
    return train_user_router(
        backbone, parts, shop, load_split(shop), folder / "chosen", config, ctr_model="titles"
    ).folder


def test_a_user_is_exported_by_hub_id(
    hub: Hub, backbone: Backbone, personal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone.push_to_hub("me/tiny")
    push_personal_adapters(personal, "me/taste", base_model="me/tiny", private=True)
    assert hub.model("me/taste").private
    assert recorded_backbone_id("me/taste") == "me/tiny"
    assert export_user(personal, "u03", tmp_path / "here", backbone)
    assert export_user("me/taste", "u03", tmp_path / "there", Backbone.from_pretrained("me/tiny"))
    assert same_tensors(read_adapter(tmp_path / "here"), read_adapter(tmp_path / "there"))
    monkeypatch.chdir(tmp_path)
    run("personal", "export", "me/taste", "--user", "u03", "--out", "by-command")
    assert same_tensors(read_adapter(tmp_path / "here"), read_adapter(tmp_path / "by-command"))
    assert read_adapter("by-command").config["base_model_name_or_path"] == "me/tiny"


@pytest.mark.filterwarnings("error::UserWarning")
def test_only_what_is_needed_is_pushed_and_no_local_path_of_the_backbone(
    hub: Hub, backbone: Backbone, personal: Path
) -> None:
    push_personal_adapters(personal, "me/taste", base_model="me/tiny")
    files = hub.model("me/taste").files
    names = {"personalize.json", "users.parquet", "crm/conventional.json", "crm/model.safetensors", "README.md"}
    assert files.keys() - {".gitattributes"} == names | {"personal/personal.json", "personal/personal.safetensors"}
    assert backbone.id.encode() not in b"".join(files.values())
    card = ModelCard(files["README.md"].decode())
    assert (card.data.base_model, card.data.library_name) == ("me/tiny", "lorarec")
    assert "lorarec personal export me/taste" in card.text
    assert read_json(personal / "personalize.json")["backbone"]["id"] == backbone.id


def test_a_user_router_is_loaded_by_hub_id(hub: Hub, backbone: Backbone, shop: Dataset, chosen: Path) -> None:
    push_personal_adapters(chosen, "me/chosen", base_model="me/tiny", revision="v1")
    here, there = (UserRouter.load(source, backbone, shop) for source in (chosen, "me/chosen@v1"))
    items = shop.interactions["item_id"].to_list()[:3]
    history = UserHistory("u001", items, [1, 2, 3])
    assert here.weights(history).equal(there.weights(history))
    assert all(same_tensors(*pair) for pair in zip(here.adapters, there.adapters, strict=True))


def test_another_kind_of_folder_takes_the_place_of_the_first(
    hub: Hub, backbone: Backbone, personal: Path, chosen: Path
) -> None:
    push_personal_adapters(chosen, "me/personal", base_model="me/tiny")
    push_personal_adapters(personal, "me/personal", base_model="me/tiny")
    files = hub.model("me/personal").files
    assert "personalize.json" in files
    assert not files.keys() & {"user_router.json", "titles.parquet"}


def test_what_is_refused(hub: Hub, backbone: Backbone, personal: Path, shop: Dataset, tmp_path: Path) -> None:
    refusals = [
        (
            lambda: push_personal_adapters(personal, "me/a"),
            rf"names the backbone {backbone.id}, which is not on the hub",
        ),
        (lambda: push_personal_adapters(tmp_path, "me/a"), "has no personal adapters: give a folder of"),
        (lambda: export_user("me/none", "u03", tmp_path / "out", backbone), "the hub has no model of this name"),
        (
            lambda: export_user(tmp_path / "none", "u03", tmp_path / "out", backbone),
            "has no personal adapters: give a folder of",
        ),
        (lambda: UserRouter.load("me/none", backbone, shop), "personal adapters me/none: there is no such folder"),
    ]
    for refused, message in refusals:
        with pytest.raises(LorarecError, match=message):
            refused()
    assert ("model", "me/a") not in hub.repositories
