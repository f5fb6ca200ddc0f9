"""Few2Many from ratings to predictions: trained and frozen weights, errors, and resuming."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from scipy.special import expit, logit
from sklearn.metrics import log_loss as sklearn_log_loss

from lorarec.backbone import title_embeddings
from lorarec.ctr import CTRConfig, CTRModel, fit_ctr_model
from lorarec.data import Dataset
from lorarec.data.click_logs import click_log
from lorarec.errors import LorarecError
from lorarec.personal import (
    PersonalizationConfig,
    Personalized,
    PersonalLora,
    export_user,
    few2many,
    meta_loras,
    personalize,
    report_clicks,
)
from lorarec.personal import (
    tuning as tune,
)
from lorarec.personal.event_rows import EventReader
from lorarec.personal.plots import plot_user_weights
from lorarec.personal.scoring import probabilities
from lorarec.personal.user_adapters import user_weights
from lorarec.scoring import score_batch
from lorarec.training import TrackingConfig
from tests.tracker_readers import INSTALLED, common_name, keep_offline, runs

TINY: dict[str, Any] = {
    "samples": 40,
    "num_meta_loras": 3,
    "r": 2,
    "lora_alpha": 4,
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 1e-2,
}


def quick_personalize(backbone, dataset, out, *, ctr_model, shared=(), resume=False, **options) -> Personalized:
    """Call `personalize` with few samples."""
    config = PersonalizationConfig(**TINY | options)
    return personalize(backbone, dataset, out, config, ctr_model=ctr_model, shared=shared, resume=resume)


@pytest.fixture(scope="module")
def ctr_folder(taste: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a trained click-through model."""
    folder = tmp_path_factory.mktemp("ctr") / "din"
    fit_ctr_model("din", click_log(taste), CTRConfig(epochs=2, batch_size=32)).save(folder)
    return folder


def row_reader(backbone, recommender: CTRModel, options: PersonalizationConfig) -> EventReader:
    """A reader that retrieves by titles, as `personalize` does."""
    titles = recommender.encoder.log.dataset.items["title"].to_list()
    return EventReader(backbone, recommender, options, title_embeddings(backbone, titles))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "personal.safetensors")


def same(first_bank: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return first_bank.keys() == other.keys() and all(torch.equal(first_bank[name], other[name]) for name in first_bank)


def test_everything_is_written_and_the_click_through_model_is_unchanged(tiny_backbone, taste, ctr_folder, tmp_path):
    before = {name: value.clone() for name, value in tiny_backbone.model.state_dict().items()}
    result = quick_personalize(
        tiny_backbone, taste, tmp_path / "out", ctr_model=ctr_folder, shared=("recent", "similar")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert same(load_file(ctr_folder / "model.safetensors"), load_file(tmp_path / "out" / "crm" / "model.safetensors"))
    assert same(before, dict(tiny_backbone.model.state_dict()))
    assert result.predictions.equals(pl.read_parquet(tmp_path / "out" / "predictions.parquet"))
    rows = ["DIN", "shared LoRA, recent history", "shared LoRA, similar history", "RecLoRA", "RecLoRA + DIN"]
    assert result.predictions.columns == ["user_id", "item_id", "timestamp", "label", *rows]
    assert all(result.predictions[name].is_between(0, 1).all() for name in rows)
    assert all(result.predictions[name].n_unique() > 3 for name in rows)
    record = json.loads((tmp_path / "out" / "personalize.json").read_text())
    assert record == result.record
    assert record["datasets"][0]["fingerprint"] == taste.fingerprint
    assert record["test"] == {
        "events": 36,
        "unseen_users": 12,
        "unseen_items": 0,
        "without_history": 12,
        "fell_back": 12,
    }


def test_some_test_events_are_drawn_alike_for_all_seeds(tiny_backbone, taste, ctr_folder, tmp_path):
    log = click_log(taste)
    drawn = []
    for seed in (1, 2):
        result = quick_personalize(
            tiny_backbone, taste, tmp_path / str(seed), ctr_model=ctr_folder, test_events=20, seed=seed
        )
        drawn.append(result.predictions.select("user_id", "item_id", "timestamp", "label"))
        assert result.record["test"]["events"] == len(result.predictions) == 20
        np.testing.assert_allclose(
            result.predictions["DIN"], CTRModel.load(ctr_folder, log).score(log.few_shot(20, part="test"))
        )
    assert drawn[0].equals(drawn[1])


def test_id_history_is_retrieved_or_recent(tiny_backbone, taste, tmp_path):
    found = {}
    for how in ("similar", "recent"):
        options = {**TINY, "ctr_max_history": 2, "ctr_retrieval": how}
        found[how] = quick_personalize(tiny_backbone, taste, tmp_path / how, ctr_model="din", **options)
        log = click_log(taste)
        again = CTRModel.load(tmp_path / how / "crm", log)
        assert again.record["history"] == how
        stored = found[how].predictions["DIN"].to_numpy()
        np.testing.assert_array_equal(again.score(log.rows("test")).astype(np.float64), stored)
    assert not found["similar"].predictions["DIN"].equals(found["recent"].predictions["DIN"])


@pytest.fixture(scope="module")
def whole(shared_backbone, taste, ctr_folder, tmp_path_factory) -> Personalized:
    """An uninterrupted run with a shared LoRA."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return quick_personalize(shared_backbone, taste, out, ctr_model=ctr_folder, shared=("similar",))


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    tiny_backbone, taste, ctr_folder, whole, tmp_path, monkeypatch, stop
):
    run: dict[str, Any] = {**TINY, "ctr_model": ctr_folder, "shared": ("similar",), "save_steps": 3}
    add_gradient, calls = tune.add_gradient, []

    def killed(*arguments: Any) -> float:
        calls.append(0)
        if len(calls) == 10 + stop:  # the shared LoRA has ten steps
            raise KeyboardInterrupt
        return add_gradient(*arguments)

    monkeypatch.setattr(tune, "add_gradient", killed)
    with pytest.raises(KeyboardInterrupt):
        quick_personalize(tiny_backbone, taste, tmp_path / "cut", **run)
    assert not (tmp_path / "cut").exists()
    with pytest.raises(LorarecError, match="holds an interrupted run: pass resume=True"):
        quick_personalize(tiny_backbone, taste, tmp_path / "cut", **run)
    with pytest.raises(LorarecError, match=r"holds another run: options.learning_rate was 0.01 and is now 0.5"):
        quick_personalize(tiny_backbone, taste, tmp_path / "cut", resume=True, **{**run, "learning_rate": 0.5})
    calls.clear()
    monkeypatch.setattr(tune, "add_gradient", add_gradient)
    cut = quick_personalize(tiny_backbone, taste, tmp_path / "cut", resume=True, **run)
    for name in ("shared-similar", "personal"):
        assert same(tensors(tmp_path / "cut" / name), tensors(whole.folder / name))
    assert cut.predictions.equals(whole.predictions)
    assert not (tmp_path / "cut.checkpoints").exists()


def test_shared_lora_is_a_bank_of_one(tiny_backbone, taste, ctr_folder, tmp_path):
    options = {**TINY, "num_meta_loras": 1}
    result = quick_personalize(
        tiny_backbone, taste, tmp_path / "out", ctr_model=ctr_folder, shared=("similar",), **options
    )
    assert same(tensors(tmp_path / "out" / "shared-similar"), tensors(tmp_path / "out" / "personal"))
    assert result.predictions["RecLoRA"].equals(result.predictions["shared LoRA, similar history"], check_names=False)


def test_tuning_lowers_the_loss(tiny_backbone, taste, ctr_folder, tmp_path):
    log = click_log(taste)
    options = PersonalizationConfig(**{**TINY, "epochs": 20, "learning_rate": 3e-2})
    reader = row_reader(tiny_backbone, CTRModel.load(ctr_folder, log), options)
    rows = reader.read(log.few_shot(40), "similar")
    torch.manual_seed(0)
    bank = meta_loras(tiny_backbone.model, 3, 2, 4)
    with PersonalLora(tiny_backbone, bank, rows.representation.shape[1]) as personal:
        loss = tune.tune(personal, rows, reader.builder, options, tmp_path / "state.pt", "")
    assert loss < 0.45  # a coin has 0.69


@pytest.fixture
def tuned(whole, tiny_backbone, taste, ctr_folder):
    """A folder that `personalize` wrote, and a reader of its rows."""
    reader = row_reader(tiny_backbone, CTRModel.load(ctr_folder, click_log(taste)), PersonalizationConfig(**TINY))
    return whole.folder, reader


def test_batches_do_not_matter_and_users_without_history_get_the_mean(tuned, tiny_backbone, taste):
    folder, reader = tuned
    log = click_log(taste)
    test = log.rows("test")
    rows = reader.read(test, "similar")
    with PersonalLora.load(folder / "personal", tiny_backbone) as personal:
        with torch.no_grad():
            mean = personal(reader.read(log.few_shot(40), "similar").representation).mean(1)
        torch.testing.assert_close(personal.router.mean, mean)
        together = probabilities(personal, rows, reader.builder)
        separate = probabilities(personal, rows, reader.builder, token_budget=1)
        np.testing.assert_allclose(together, separate, atol=1e-6)
        for row in np.flatnonzero(rows.falls_back)[:3]:
            personal.set_weights(mean[:, None])
            with torch.no_grad():
                score = score_batch(tiny_backbone.model, [rows.examples[row]], reader.builder)[0]
            np.testing.assert_allclose(score.sigmoid(), together[row], atol=1e-6)
    stored = pl.read_parquet(folder / "predictions.parquet")["RecLoRA"].to_numpy()
    np.testing.assert_allclose(stored, together, atol=1e-6)


def test_exported_user_has_the_same_probability_under_peft(tuned, tiny_backbone, taste, tmp_path):
    folder, reader = tuned
    log = click_log(taste)
    events = np.flatnonzero(log.users[log.user] == "u03")[-10:]
    example = reader.read(events[:1], "similar").examples
    with PersonalLora.load(folder / "personal", tiny_backbone) as personal, torch.no_grad():
        user = torch.from_numpy(reader.ctr_model.representation(events).mean(0))
        personal.set_weights(personal(user[None]))
        expected = score_batch(tiny_backbone.model, example, reader.builder)[0].sigmoid()
    export_user(folder, "u03", tmp_path / "u03", tiny_backbone)
    peft = PeftModel.from_pretrained(tiny_backbone.model, tmp_path / "u03")
    with torch.no_grad():
        found = score_batch(peft.base_model.model, example, reader.builder)[0].sigmoid()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    meta = json.loads((tmp_path / "u03" / "lorarec.json").read_text())
    assert (meta["user"], meta["routed"], meta["options"]["template"]) == ("u03", True, "click-v1")


def test_exported_user_without_history_gets_the_mean_mixture(tuned, tiny_backbone, tmp_path):
    folder, _ = tuned
    users = pl.read_parquet(folder / "users.parquet")
    assert users.filter(pl.col("representation").is_null())["user_id"].to_list() == ["u29"]
    assert not export_user(folder, "u29", tmp_path / "u29", tiny_backbone)
    meta = json.loads((tmp_path / "u29" / "lorarec.json").read_text())
    with PersonalLora.load(folder / "personal", tiny_backbone) as personal:
        mean = personal.router.mean.tolist()
    assert not meta["routed"]
    np.testing.assert_allclose(list(meta["personal"]["weights"].values()), mean, atol=1e-6)


def test_weights_of_every_user_are_on_the_simplex_and_drawn(tuned, tiny_backbone, tmp_path):
    folder, _ = tuned
    users = pl.read_parquet(folder / "users.parquet")
    with PersonalLora.load(folder / "personal", tiny_backbone) as personal:
        weights = user_weights(personal, users)
        layers = list(personal.bank.layers)
    assert weights.shape == (30, len(layers), 3)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert (folder / "weights.png").read_bytes().startswith(b"\x89PNG")
    for few in (weights[:1], weights[:, :, :1]):  # nothing varies
        plot_user_weights(tmp_path / "few.png", few, np.zeros(len(few)), layers)
        assert (tmp_path / "few.png").stat().st_size > 1000


def test_export_of_an_unknown_user(tuned, tiny_backbone, tmp_path):
    with pytest.raises(LorarecError, match="has no user 'nobody'"):
        export_user(tuned[0], "nobody", tmp_path / "adapter", tiny_backbone)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ctr_model": "nope"}, "'nope' is neither a folder nor a click-through model: choose from deepfm"),
        ({"samples": 10_000}, "cannot draw 10000 of"),
        ({"test_events": 10_000}, "cannot draw 10000 of 36 test events"),
        ({"test_events": 0}, "option test_events must be at least 1, got 0"),
        ({"samples": 1}, "the 1 sampled events need two of either label"),
        ({"positive_from": 2.0}, "every rating is at least 2"),
        ({"stars": 4.0}, "outside 0 to 4"),
        ({"learning_rate": 0}, "option learning_rate must be positive, got 0"),
        ({"epochs": 0}, "option epochs must be at least 1, got 0"),
        ({"shared": ("random",)}, "similar or recent history, got 'random'"),
        ({"retrieval": "random"}, "option retrieval must be similar or recent"),
        ({"ctr_retrieval": "random"}, "option ctr_retrieval must be similar or recent"),
    ],
)
def test_bad_input(tiny_backbone, taste, ctr_folder, tmp_path, options, message):
    with pytest.raises(LorarecError, match=message):
        quick_personalize(tiny_backbone, taste, tmp_path / "out", **{"ctr_model": ctr_folder, **options})
    assert list(tmp_path.iterdir()) == []


def test_later_ratings_all_alike(tiny_backbone, taste, ctr_folder, tmp_path):
    log = click_log(taste)
    liked = pl.when(pl.col("timestamp") >= log.time[log.rows("test")].min()).then(5.0).otherwise(pl.col("rating"))
    rows = taste.interactions.with_columns(rating=liked.cast(pl.Float32))
    alike = Dataset.from_frames("alike", rows, taste.items, taste.users)
    with pytest.raises(LorarecError, match=r"alike: the \d+ test events need two of either label"):
        quick_personalize(tiny_backbone, alike, tmp_path / "out", ctr_model=ctr_folder)
    assert list(tmp_path.iterdir()) == []


def test_recommender_of_other_data_is_refused(tiny_backbone, taste, ctr_folder, tmp_path):
    with pytest.raises(LorarecError, match="was trained on other data"):
        quick_personalize(tiny_backbone, taste, tmp_path / "out", ctr_model=ctr_folder, positive_from=3.0, stars=6.0)
    assert list(tmp_path.iterdir()) == []


def test_diverged_run_is_reported(tiny_backbone, taste, ctr_folder, tmp_path):
    with pytest.raises(LorarecError, match=r"the loss is .* lower the learning rate"):
        quick_personalize(
            tiny_backbone,
            taste,
            tmp_path / "out",
            ctr_model=ctr_folder,
            learning_rate=1e20,
            warmup_ratio=0.0,
        )


def test_run_stopped_between_stages_resumes_with_its_click_through_model(tiny_backbone, taste, tmp_path, monkeypatch):
    def killed(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(few2many, "tune", killed)
        with pytest.raises(KeyboardInterrupt):
            quick_personalize(tiny_backbone, taste, tmp_path / "out", ctr_model="deepfm")
    with monkeypatch.context() as patch:
        patch.setattr(few2many, "fit_ctr_model", killed)
        quick_personalize(tiny_backbone, taste, tmp_path / "out", ctr_model="deepfm", resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    log = click_log(taste)  # the model is fitted on all training events, not on the samples alone
    assert CTRModel.load(tmp_path / "out" / "crm", log).record["events"] == len(log.rows("train"))


def test_the_last_row_blends_with_weights_that_validation_events_chose(tiny_backbone, taste, whole):
    recommender = CTRModel.load(whole.folder / "crm", click_log(taste))
    log = recommender.encoder.log
    judged = log.rows("valid")
    reader = row_reader(tiny_backbone, recommender, PersonalizationConfig(**TINY))
    with PersonalLora.load(whole.folder / "personal", tiny_backbone) as personal:
        own = probabilities(personal, reader.read(judged, "similar"), reader.builder)
    log_odds = np.stack([logit(recommender.score(judged).astype(np.float64)), logit(own)])
    losses = [
        sklearn_log_loss(log.label[judged], expit((1 - weight) * log_odds[0] + weight * log_odds[1]))
        for weight in np.linspace(0, 1, 21)
    ]
    best = int(np.argmin(losses))
    blend = whole.record["blend"]
    assert blend["events"] == len(judged)
    np.testing.assert_allclose(sorted(tried["loss"] for tried in blend["losses"]), sorted(losses), rtol=1e-4)
    np.testing.assert_allclose(blend["weights"], [1 - best / 20, best / 20], atol=1e-9)
    rows = {name: logit(values) for name, values in whole.rows.items()}
    np.testing.assert_allclose(
        rows["RecLoRA + DIN"], rows["DIN"] * (1 - best / 20) + rows["RecLoRA"] * best / 20, atol=1e-5
    )


def test_trackers_get_the_losses_the_weights_and_the_metrics(
    tiny_backbone, taste, ctr_folder, tmp_path, monkeypatch
) -> None:
    keep_offline(monkeypatch, tmp_path / "trackers")
    monkeypatch.chdir(tmp_path)
    steps, stopped = [], RuntimeError("killed")

    def stop_at_step_6(*arguments: Any) -> Any:
        steps.append(None)
        if len(steps) == 6:
            raise stopped
        return add_gradient(*arguments)

    add_gradient, config = tune.add_gradient, PersonalizationConfig(**TINY | {"save_steps": 3})
    common: dict[str, Any] = {
        "ctr_model": ctr_folder,
        "tracking": TrackingConfig(report_to=INSTALLED, run_name="taste"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(tune, "add_gradient", stop_at_step_6)
        with pytest.raises(RuntimeError, match="killed"):
            personalize(tiny_backbone, taste, tmp_path / "out", config, **common)
    result = personalize(tiny_backbone, taste, tmp_path / "out", config, resume=True, report=report_clicks, **common)
    plain = personalize(
        tiny_backbone, taste, tmp_path / "plain", config, ctr_model=ctr_folder, tracking=TrackingConfig("none")
    )
    assert same(tensors(plain.folder / "personal"), tensors(result.folder / "personal"))
    assert not (plain.folder / "tensorboard").exists()
    metrics = json.loads((result.folder / "metrics.json").read_text())["rows"]
    weights = result.record["mean_weights"]
    assert sum(weights) == pytest.approx(1)
    for tracker in INSTALLED:
        (run,) = runs(tracker, result.folder if tracker == "tensorboard" else tmp_path / "trackers")
        exact = {"rel": 1e-6 if tracker == "tensorboard" else 1e-12}
        assert sorted(run.figures["personal_loss"]) == list(range(1, 11))
        assert run.figures["personal_learning_rate"][1] == pytest.approx(
            TINY["learning_rate"], abs=TINY["learning_rate"]
        )
        for number, weight in enumerate(weights, 1):
            assert run.last(f"mean_weights_{number}") == pytest.approx(weight, **exact)
        for row, results in metrics.items():
            for name, figure in results.items():
                assert run.last(common_name(f"test_{row}/{name}")) == pytest.approx(figure["mean"], **exact), row
        assert run.pictures == ["weights"]
        assert run.options["datasets"] == "taste"
        assert str(run.options["num_meta_loras"]) == "3"
