"""The user router: weights that differ by user, frozen adapters, and test targets that are not read."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from lorarec.data import Dataset, Split, leave_one_out
from lorarec.errors import LorarecError
from lorarec.io.artefacts import read_json, write_json
from lorarec.lora import MixingPrompts
from lorarec.personal import (
    PersonalLora,
    UserRouter,
    UserRouterConfig,
    UserRouterResult,
    export_user,
    report_user_mixtures,
    train_user_router,
)
from lorarec.personal.scoring import user_scores
from lorarec.personal.user_adapters import user_mixtures
from lorarec.ranking import Ranker
from lorarec.training import TrackingConfig, TrainingConfig, train
from tests.factories import dataset_of
from tests.tracker_readers import INSTALLED, common_name, keep_offline, runs

QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 16, "cases": 24}


def colours(users: range, kind: int | None = None) -> Dataset:
    """Users who choose among 40 red items (even users, or kind 0) or 40 blue ones; all of them rated."""
    rng = np.random.default_rng(0)
    rows = []
    for user in users:
        own = user % 2 if kind is None else kind
        for at, thing in enumerate(rng.choice(40, 4 + user % 5, replace=False)):
            rows.append((f"u{user:03}", f"i{own}{thing:02}", 100 * at + user, float(rng.integers(1, 6))))
    things = ["lamp", "chair", "table", "brush", "game"]
    titles = {
        f"i{own}{thing:02}": f"{colour} {things[thing % 5]} {thing}"
        for own, colour in enumerate(("red", "blue"))
        for thing in range(40)
    }
    return dataset_of(rows, titles, "colours")


@pytest.fixture(scope="module")
def shop() -> tuple[Dataset, Split]:
    """80 users, whose cases have four items of the other colour besides the target."""
    dataset = colours(range(80))
    split = leave_one_out(dataset, new_items=0, negatives=4, seed=1)
    return dataset, replace(
        split, valid=of_other_colour(split.valid), test={"warm": of_other_colour(split.test["warm"])}
    )


def of_other_colour(cases: pl.DataFrame) -> pl.DataFrame:
    """Cases whose negatives all have the colour that their user never chooses."""
    rng = np.random.default_rng(2)
    drawn = []
    for target in cases["target"]:
        others = [f"i{1 - int(target[1])}{thing:02}" for thing in rng.choice(40, 4, replace=False)]
        drawn.append(rng.permutation([target, *others]).tolist())
    return cases.with_columns(pl.Series("candidates", drawn))


@pytest.fixture
def adapters(tiny_backbone, write_adapter, tmp_path) -> list[Path]:
    """Random adapters."""
    meta = {"backbone": {"id": "tiny", "fingerprint": tiny_backbone.fingerprint}, "options": {"max_history": 3}}
    names = ("general", "specific")
    return [write_adapter(tiny_backbone.model, tmp_path / name, seed, meta) for seed, name in enumerate(names)]


def quick_router(backbone, adapters, dataset, split, out, *, ctr_model="din", **options) -> UserRouterResult:
    """Call `train_user_router` with few cases."""
    config = UserRouterConfig(**QUICK | options)
    return train_user_router(backbone, adapters, dataset, split, out, config, ctr_model=ctr_model)


def trained_adapters(backbone, out: Path) -> list[Path]:
    """Two adapters: one that learned from users who choose red items only, one from those who choose blue ones."""
    options: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 8,
        "learning_rate": 2e-2,
        "epochs": 1,
        "samples": 160,
        "batch_size": 8,
    }
    options |= {"negatives": 3, "eval_users": 0, "evidence": False, "lora_dropout": 0.0, "max_history": 3, "seed": 0}
    folders = []
    for kind, name in enumerate(("red", "blue")):
        dataset = colours(range(200, 240), kind)
        sources = [(dataset, leave_one_out(dataset, new_items=0))]
        folders.append(train(backbone, sources, out / name, TrainingConfig(**options)).folder)
    return folders


def hits(scores: list[np.ndarray], cases: pl.DataFrame) -> float:
    """NDCG@1."""
    pairs = zip(scores, cases.select("target", "candidates").iter_rows(), strict=True)
    return float(np.mean([candidates[int(found.argmax())] == target for found, (target, candidates) in pairs]))


def test_users_who_need_different_adapters_get_them(tiny_backbone, shop, tmp_path):
    dataset, split = shop
    adapters, out = trained_adapters(tiny_backbone, tmp_path), tmp_path / "out"
    options: dict[str, Any] = {"batch_size": 8, "learning_rate": 2e-2, "epochs": 4, "combine": "deltas"}
    before = {name: value.clone() for name, value in tiny_backbone.model.state_dict().items()}
    found = quick_router(tiny_backbone, adapters, dataset, split, out, ctr_model="titles", **options)
    after = tiny_backbone.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    cases = split.test["warm"]
    by_constant = {}
    for folder in (*adapters, out / "constant"):
        with Ranker(tiny_backbone, folder) as ranker:
            by_constant[folder.name] = hits(ranker.score_cases(cases, dataset.titles), cases)
    prompts = MixingPrompts(tiny_backbone, [out / "constant"])
    examples = prompts.examples(dataset, split, cases)
    with PersonalLora.load(out / "personal", tiny_backbone) as personal:
        for number, folder in enumerate(adapters):  # the bank equals the adapters, bit by bit
            stored = load_file(folder / "adapter_model.safetensors")
            layers = personal.bank.layers.items()
            assert all(
                torch.equal(layer.a[number], stored[f"base_model.model.{n}.lora_A.weight"]) for n, layer in layers
            )
        weights = user_mixtures(personal, found.users, cases["user_id"])
        own = lambda rows: weights[:, rows]  # noqa: E731
        together = user_scores(personal, examples, own, prompts.builder)
        separate = user_scores(personal, examples, own, prompts.builder, token_budget=1)
    assert hits(together, cases) > max(by_constant.values()) + 0.1, by_constant
    for one, other in zip(together, separate, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
    users = dict(zip(found.users["user_id"], found.users["weights"].to_list(), strict=True))
    assert min(users[f"u{user:03}"][0] for user in (2, 4)) > max(users[f"u{user:03}"][0] for user in (3, 7))
    export_user(out, cases["user_id"][0], tmp_path / "own", tiny_backbone)
    with Ranker(tiny_backbone, tmp_path / "own") as ranker:
        np.testing.assert_allclose(ranker.score_cases(cases[:1], dataset.titles)[0], together[0], atol=1e-4)


def test_held_out_ratings_and_test_targets_are_not_seen(tiny_backbone, adapters, shop, tmp_path):
    dataset, split = shop
    targets = pl.concat([split.valid, split.test["warm"]]).select("user_id", item_id="target")
    held_out = dataset.interactions.join(targets, on=("user_id", "item_id"), how="semi")
    rated = dataset.interactions.join(held_out, on=("user_id", "item_id"), how="anti")
    changed = pl.concat(
        [rated, held_out.with_columns(rating=pl.lit(1.0, pl.Float32), timestamp=pl.lit(9**9, pl.Int64))]
    )
    other = Dataset.from_frames("colours", changed, dataset.items)
    blind = replace(split, test={"warm": split.test["warm"].with_columns(target=pl.lit("nobody"))})
    quick_router(tiny_backbone, adapters, dataset, split, tmp_path / "one")
    quick_router(tiny_backbone, adapters, other, blind, tmp_path / "two")
    for name in ("crm/model.safetensors", "personal/personal.safetensors"):
        one, two = (load_file(tmp_path / run / name) for run in ("one", "two"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name
    assert pl.read_parquet(tmp_path / "one" / "users.parquet").equals(
        pl.read_parquet(tmp_path / "two" / "users.parquet")
    )


def test_constant_mixture_where_training_does_not_help(tiny_backbone, adapters, shop, tmp_path):
    dataset, split = shop
    found = quick_router(
        tiny_backbone, adapters, dataset, split, tmp_path / "out", ctr_model="titles", learning_rate=1e-12
    )
    record = json.loads((tmp_path / "out" / "user_router.json").read_text())
    assert record == found.record
    assert record["kept_epoch"] == 0
    assert record["cases"] == {"trained": 18, "held_out": 6}
    best = min(record["grid"], key=lambda tried: tried["loss"])
    assert record["constant"] == best["weights"]
    np.testing.assert_allclose(found.users["weights"].to_numpy(), [best["weights"]] * len(found.users), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ctr_model": "nope"}, "'nope' is neither a folder nor a click-through model"),
        ({"cases": 1}, "option cases must be at least 2"),
        ({"held_out": 1.0}, "option held_out must be between 0 and 1"),
        ({"cases": 3, "held_out": 0.1}, "colours: 3 validation cases are too few"),
        ({"epochs": 0}, "option epochs must be at least 1"),
        ({"combine": "sum"}, "option combine must be factors or deltas, got 'sum'"),
    ],
)
def test_bad_options(tiny_backbone, adapters, shop, tmp_path, options, message):
    with pytest.raises(LorarecError, match=message):
        quick_router(tiny_backbone, adapters, *shop, tmp_path / "out", **options)
    assert {path.name for path in tmp_path.iterdir()} == {"general", "specific"}


def test_unusable_data_and_adapters(tiny_backbone, adapters, shop, tmp_path):
    dataset, split = shop
    unrated = Dataset.from_frames("shop", dataset.interactions.drop("rating"), dataset.items)
    with pytest.raises(LorarecError, match=r"shop has no ratings, .* use ctr_model titles"):
        quick_router(tiny_backbone, adapters, unrated, split, tmp_path / "out")
    with pytest.raises(LorarecError, match="needs two or more adapters, got 1"):
        quick_router(tiny_backbone, adapters[:1], dataset, split, tmp_path / "out")
    with pytest.raises(LorarecError, match="general exists already"):
        quick_router(tiny_backbone, adapters, dataset, split, adapters[0])
    empty = replace(split, valid=split.valid.clear())
    with pytest.raises(LorarecError, match="0 validation cases are too few"):
        quick_router(tiny_backbone, adapters, dataset, empty, tmp_path / "out", ctr_model="titles")
    meta = read_json(adapters[1] / "lorarec.json")
    write_json(adapters[1] / "lorarec.json", meta | {"readout": "likelihood"})
    with pytest.raises(LorarecError, match=r"different values of readout \(verdict, likelihood\)"):
        quick_router(tiny_backbone, adapters, dataset, split, tmp_path / "out")
    write_json(adapters[1] / "lorarec.json", meta | {"backbone": {"id": "other", "fingerprint": "x"}})
    with pytest.raises(LorarecError, match="belongs to backbone other"):
        quick_router(tiny_backbone, adapters, dataset, split, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_custom_template_is_copied(tiny_backbone, adapters, shop, tmp_path):
    text = "{{ history | join(', ') }} then {{ candidate }}{% if note %}, {{ note }}{% endif %}?"
    for folder in adapters:
        record = read_json(folder / "lorarec.json")
        record["options"]["template"] = "own.j2"
        (folder / "own.j2").write_text(text)
        write_json(folder / "lorarec.json", record)
    dataset, split = shop
    out = tmp_path / "chosen"
    quick_router(tiny_backbone, adapters, dataset, split, out, ctr_model="titles")
    export_user(out, split.valid["user_id"][0], tmp_path / "own", tiny_backbone)
    for folder in (tmp_path / "own", out / "constant"):
        with Ranker(tiny_backbone, folder) as ranker:
            assert ranker.builder.template.source == text
    assert UserRouter.load(out, tiny_backbone, dataset).prompt.template.text == text


@pytest.mark.parametrize(
    "name", ["user_router.json", "titles.parquet", "personal/personal.json", "personal/personal.safetensors"]
)
def test_files_of_a_chooser_that_never_end(name, tiny_backbone, adapters, shop, tmp_path):
    dataset, split = shop
    out = tmp_path / "chosen"
    quick_router(tiny_backbone, adapters, dataset, split, out, ctr_model="titles", cases=4)
    (out / name).unlink()
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        make(out / name)
        with pytest.raises(LorarecError, match=f"{name} is not a regular file"):
            UserRouter.load(out, tiny_backbone, dataset)
        (out / name).unlink()


def test_trackers_get_the_losses_the_weights_and_the_metrics(
    tiny_backbone, adapters, shop, tmp_path, monkeypatch
) -> None:
    keep_offline(monkeypatch, tmp_path / "trackers")
    monkeypatch.chdir(tmp_path)
    dataset, split = shop
    named = dict(zip(("general", "specific"), adapters, strict=True))

    def report(made: UserRouterResult) -> None:
        report_user_mixtures(tiny_backbone, dataset, split, made.folder, named, "warm")

    def choose(out: str, tracking: TrackingConfig, report: Any = None) -> UserRouterResult:
        config = UserRouterConfig(**QUICK | {"epochs": 2})
        common: dict[str, Any] = {"ctr_model": "titles", "tracking": tracking, "overwrite": True, "report": report}
        return train_user_router(tiny_backbone, adapters, dataset, split, tmp_path / out, config, **common)

    plain = choose("plain", TrackingConfig("none"))
    assert not (plain.folder / "tensorboard").exists()
    choose("out", TrackingConfig("tensorboard"), report)
    result = choose("out", TrackingConfig(INSTALLED, run_name="colours"), report)
    assert result.record["losses"] == plain.record["losses"]
    losses = result.record["losses"]
    metrics = json.loads((result.folder / "metrics.json").read_text())["settings"]["warm"]["rows"]
    mean_weights = np.stack(result.users["weights"].to_list()).mean(0)
    for tracker in INSTALLED:
        *_, run = runs(tracker, result.folder if tracker == "tensorboard" else tmp_path / "trackers")
        exact = {"rel": 1e-6 if tracker == "tensorboard" else 1e-12}
        held_out, trained = (run.figures[common_name(name)] for name in ("eval_loss", "loss"))
        assert held_out == pytest.approx({each["epoch"]: each["held_out"] for each in losses}, **exact)
        assert trained == pytest.approx({each["epoch"]: each["trained"] for each in losses[1:]}, **exact)
        for number, weight in enumerate(mean_weights, 1):
            assert run.last(f"mean_weights_{number}") == pytest.approx(weight, rel=1e-5)
        for row in ("general", "own mixture", "popularity"):
            assert run.last(common_name(f"test_{row}/ndcg@1")) == pytest.approx(metrics[row]["ndcg@1"]["mean"], **exact)
        assert run.pictures == ["adapter_preference", "ndcg"]
        assert run.options["datasets"] == "colours"
        assert str(run.options["epochs"]) == "2"
        assert run.options["ctr_model"] == "titles"
