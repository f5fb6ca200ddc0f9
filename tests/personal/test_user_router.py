"""A user router in memory gives the weights of training for the same histories."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from lorarec.backbone import Backbone
from lorarec.ctr import CTRConfig, fit_ctr_model
from lorarec.data import Dataset, click_log, leave_one_out
from lorarec.errors import LorarecError
from lorarec.io.artefacts import read_json, write_json
from lorarec.lora import Adapter, AdapterRecord, save_adapter
from lorarec.personal import PersonalLora, UserHistory, UserRouter, UserRouterConfig, train_user_router
from lorarec.personal.user_adapters import user_representations
from lorarec.personal.user_history import RatedHistories
from tests.factories import dataset_of, numbered_titles, random_adapter

QUICK = UserRouterConfig(epochs=1, batch_size=16, cases=12, seed=3, combine="deltas")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """24 users with 4 to 9 rated items each, and its split; only one user chose item i29, as the last one."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(24):
        things = [*rng.choice(29, 3 + user % 6, replace=False), 29 if user == 5 else 28 - user]
        rows += [
            (f"u{user:02}", f"i{thing:02}", 100 * at + user, 1.0 + (user + at) % 5) for at, thing in enumerate(things)
        ]
    folder = tmp_path_factory.mktemp("data") / "log"
    found = dataset_of(rows, numbered_titles(30), "log").save(folder)
    leave_one_out(found, new_items=0, negatives=3).save(folder / "split")
    return found


def choose(backbone: Backbone, dataset: Dataset, folder: Path, ctr_model: str) -> Path:
    """Write a user router over two random adapters, one of which skips some layers; its weights differ by user."""
    adapters = []
    for seed, name in enumerate(("general", "specific")):
        drawn = random_adapter(backbone, seed, scale=1.5)
        layers = list(drawn.tensors)[: 14 - 3 * seed]
        tensors, scales = ({layer: of[layer] for layer in layers} for of in (drawn.tensors, drawn.scales))
        (folder / name).mkdir()
        save_adapter(Adapter(tensors, scales), folder / name, "tiny", AdapterRecord())
        adapters.append(folder / name)
    split = leave_one_out(dataset, new_items=0, negatives=3)
    train_user_router(backbone, adapters, dataset, split, folder / "chosen", QUICK, ctr_model=ctr_model)
    path = folder / "chosen" / "personal" / "personal.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    state["router.out_weight"].normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
    save_file(state, path)
    return folder / "chosen"


@pytest.fixture(scope="module", params=["din", "titles"])
def chosen(
    request: pytest.FixtureRequest,
    shared_backbone: Backbone,
    dataset: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Folders of user routers that represent users by their ratings, and by their titles."""
    return choose(shared_backbone, dataset, tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def copied(shared_backbone: Backbone, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Return copies of one folder, to be damaged."""
    folder = choose(shared_backbone, dataset, tmp_path_factory.mktemp("whole"), "deepfm")
    return lambda: Path(shutil.copytree(folder, tmp_path_factory.mktemp("copy") / "chosen"))


def past(dataset: Dataset, user: str, count: int) -> UserHistory:
    """The first events of a user."""
    rows = dataset.interactions.filter(user_id=user)[:count]
    return UserHistory(user, rows["item_id"].to_list(), rows["timestamp"].to_list())


def test_training_histories_give_the_weights_of_training(
    chosen: Path, shared_backbone: Backbone, dataset: Dataset
) -> None:
    user_router = UserRouter.load(chosen, shared_backbone, dataset)
    users = pl.read_parquet(chosen / "users.parquet")
    with PersonalLora.load(chosen / "personal", shared_backbone) as personal, torch.no_grad():
        expected = personal(torch.from_numpy(users["representation"].to_numpy().copy())).transpose(0, 1)
        torch.testing.assert_close(user_router.weights(None), personal.router.mean)
        assert (user_router.names, list(user_router.layers)) == (personal.bank.names, list(personal.bank.layers))
    for user, events, weights in zip(users["user_id"], users["events"], expected, strict=True):
        found = user_router.weights(past(dataset, user, events))
        torch.testing.assert_close(found, weights, atol=1e-5, rtol=0)
    assert expected.std(0).max() > 0.01


def test_a_history_that_has_gone_on_is_read_anew(chosen: Path, shared_backbone: Backbone, dataset: Dataset) -> None:
    user_router = UserRouter.load(chosen, shared_backbone, dataset)
    before = past(dataset, "u05", 6)
    after = UserHistory("u05", [*before.items, "i03"], [*before.times, 10**6])
    assert (user_router.weights(before) - user_router.weights(after)).abs().max() > 1e-4
    new = UserHistory("nobody", after.items, after.times)
    weights = user_router.weights(new)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    by_titles = read_json(chosen / "user_router.json")["user_router"]["ctr_model"] == "titles"
    assert ((weights - user_router.weights(after)).abs().max() < 1e-6) == by_titles


def test_ratings_of_one_second_keep_their_order() -> None:
    """Every user rated an item twice in the same second, at first as the worst and then as the best or vice versa."""
    rows = []
    for user in range(16):
        first, last = (1.0, 5.0) if user % 2 else (5.0, 1.0)
        rows += [(f"u{user:02}", "i01", 100 + user, first), (f"u{user:02}", "i01", 100 + user, last)]
        rows += [
            (f"u{user:02}", f"i{2 + (user + at) % 5:02}", 200 * at + user, 1.0 + (user + at) % 5) for at in range(1, 5)
        ]
    ratings = dataset_of(rows, numbered_titles(7), "twice")
    model = fit_ctr_model("din", click_log(ratings), CTRConfig(epochs=1))
    represent = RatedHistories(model, ratings.interactions)
    for user, expected in user_representations(model).iter_rows():
        found = represent(past(ratings, user, len(rows)))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_of_items_unknown_to_training_only_the_length_counts(
    chosen: Path, shared_backbone: Backbone, dataset: Dataset
) -> None:
    user_router = UserRouter.load(chosen, shared_backbone, dataset)
    numbers = np.zeros(user_router.router.input_size, np.float32)
    assert user_router.standardization.deviation[-1] > 0.1
    numbers[-1] = (np.log(3) - user_router.standardization.mean[-1]) / user_router.standardization.deviation[-1]
    with torch.no_grad():
        expected = user_router.router(torch.from_numpy(numbers)[None])[:, 0]
    torch.testing.assert_close(user_router.weights(UserHistory("nobody", ["i29", "gone"], [1, 2])), expected)


def test_parts_are_the_finished_adapters(chosen: Path, shared_backbone: Backbone, dataset: Dataset) -> None:
    user_router = UserRouter.load(chosen, shared_backbone, dataset)
    for name, adapter in zip(user_router.names, user_router.adapters, strict=True):
        stored = load_file(chosen.parent / name / "adapter_model.safetensors")
        assert len(stored) == 2 * len(adapter.tensors)
        for layer, (a, b) in adapter.tensors.items():
            assert torch.equal(a, stored[f"base_model.model.{layer}.lora_A.weight"])
            assert torch.equal(b, stored[f"base_model.model.{layer}.lora_B.weight"])
        assert set(adapter.scales.values()) == {1.5}


def _edit(path: Path, **changes: Any) -> None:
    write_json(path, read_json(path) | changes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "user_router.json").unlink(), r"user_router\.json does not exist"),
        (lambda folder: (folder / "user_router.json").write_text("[]"), "is not a user router"),
        (lambda folder: _edit(folder / "user_router.json", standard=None), "is not a user router"),
        (
            lambda folder: _edit(folder / "user_router.json", standard={"mean": [0], "deviation": [1]}),
            "belong together",
        ),
        (
            lambda folder: _edit(folder / "personal" / "personal.json", backbone=3),
            "is not a user router",
        ),
        (lambda folder: (folder / "personal" / "personal.safetensors").unlink(), "does not exist"),
        (lambda folder: (folder / "personal" / "personal.safetensors").write_bytes(b"\xff" * 64), "is corrupted"),
        (lambda folder: (folder / "crm" / "model.safetensors").write_bytes(b"\xff" * 64), "does not hold the weights"),
        (lambda folder: (folder / "crm" / "conventional.json").unlink(), "is not a folder of a click-through model"),
        (lambda folder: (folder / "crm" / "conventional.json").write_text("3"), "does not describe"),
    ],
)
def test_damaged_folders(
    copied: Callable[[], Path],
    shared_backbone: Backbone,
    dataset: Dataset,
    damage: Callable[[Path], Any],
    message: str,
) -> None:
    folder = copied()
    damage(folder)
    with pytest.raises(LorarecError, match=message):
        UserRouter.load(folder, shared_backbone, dataset)


@pytest.mark.parametrize("name", ["router.hidden_bias", "bank.model.layers.0.self_attn.q_proj.a"])
@pytest.mark.parametrize(("wrong", "message"), [(float("nan"), "NaN or infinite"), (None, "the router|the tensors of")])
def test_damaged_tensors(
    copied: Callable[[], Path],
    shared_backbone: Backbone,
    dataset: Dataset,
    name: str,
    wrong: float | None,
    message: str,
) -> None:
    folder = copied()
    path = folder / "personal" / "personal.safetensors"
    state = {key: tensor.clone() for key, tensor in load_file(path).items()}
    state[name] = state[name][:1, :1].clone() if wrong is None else state[name] * wrong
    save_file(state, path)
    with pytest.raises(LorarecError, match=message):
        UserRouter.load(folder, shared_backbone, dataset)


def test_folders_of_others(
    copied: Callable[[], Path], shared_backbone: Backbone, dataset: Dataset, tmp_path: Path
) -> None:
    folder = copied()
    other = Backbone(shared_backbone.model, shared_backbone.tokenizer, "other", "ffff")
    with pytest.raises(LorarecError, match=r"belongs to backbone tiny-qwen2 \(qwen2\), not to other"):
        UserRouter.load(folder, other, dataset)
    fewer = Dataset.from_frames("fewer", dataset.interactions[1:], dataset.items)
    with pytest.raises(LorarecError, match=r"is for the users of dataset log \(.*\), not of fewer"):
        UserRouter.load(folder, shared_backbone, fewer)
    redrawn = dataset.save(tmp_path / "log")
    leave_one_out(dataset, new_items=0, negatives=2).save(tmp_path / "log" / "split")
    with pytest.raises(LorarecError, match="another split of log"):
        UserRouter.load(folder, shared_backbone, redrawn)


def test_features_equal_for_all_users_are_zero(
    copied: Callable[[], Path], shared_backbone: Backbone, dataset: Dataset
) -> None:
    folder = copied()
    standard = read_json(folder / "user_router.json")["standard"]
    standard["deviation"][-1] = 0.0
    _edit(folder / "user_router.json", standard=standard)
    user_router = UserRouter.load(folder, shared_backbone, dataset)
    short, long = (user_router.weights(UserHistory("nobody", ["i29"] * count, range(count))) for count in (1, 100))
    assert torch.equal(short, long)
