"""Behaviour of every click-through model: batches, padding, folders, seeds, unknown users and bad input."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

import lorarec.ctr.ctr_model as folders
from lorarec.ctr import MODELS, CTRConfig, CTRModel, NetworkConfig, fit_ctr_model
from lorarec.ctr.autoint import AutoIntConfig
from lorarec.ctr.caser import CaserConfig
from lorarec.ctr.features import UNKNOWN, FeatureBatch, FeatureEncoder
from lorarec.ctr.sasrec_ctr import SASRecCTRConfig
from lorarec.ctr.sim import SIMConfig
from lorarec.data.click_logs import ClickLog
from lorarec.errors import LorarecError
from tests.factories import planted_clicks

ONE_EPOCH = CTRConfig(epochs=1)
#: Events of the small log, with histories of every length, also empty ones.
EVENTS = np.arange(15)


@pytest.fixture(scope="module", params=MODELS)
def fitted(request: pytest.FixtureRequest, small_log: ClickLog) -> CTRModel:
    """Every model after an epoch; SIM's search does not return all behaviours."""
    network = SIMConfig(num_retrieved=3, num_recent=2) if request.param == "sim" else None
    return fit_ctr_model(request.param, small_log, ONE_EPOCH, network=network)


def test_batch_equals_single(fitted: CTRModel, small_log: ClickLog) -> None:
    assert set((small_log.end - small_log.begin)[EVENTS]) == set(range(12))
    for read, shape in ((fitted.score, (15,)), (fitted.representation, (15, 64))):
        together = read(EVENTS)
        assert together.shape == shape
        np.testing.assert_allclose(together, np.concatenate([read(EVENTS[[row]]) for row in range(15)]), atol=1e-5)


def test_padding_changes_nothing(fitted: CTRModel) -> None:
    batch = fitted.encoder.batch(EVENTS)
    padded = replace(batch, history=pad(batch.history, (0, 7)), rating=pad(batch.rating, (0, 7)))
    with torch.no_grad():
        torch.testing.assert_close(fitted.model(padded), fitted.model(batch), atol=1e-5, rtol=0)


def test_the_head_reads_the_representation(fitted: CTRModel) -> None:
    """Scores are the logistic function of the head on the representation; DeepFM adds its factorisation machine."""
    with torch.no_grad():
        logits = fitted.model.head(torch.from_numpy(fitted.representation(EVENTS)))[:, 0]
    if fitted.record["model"] == "deepfm":
        logits = logits + _factorisation_machine(fitted, fitted.encoder.batch(EVENTS))
    np.testing.assert_allclose(fitted.score(EVENTS), logits.sigmoid().numpy(), atol=1e-5)


def _factorisation_machine(fitted: CTRModel, batch: FeatureBatch) -> torch.Tensor:
    """First-order terms and the inner product of each pair of fields, by loops."""
    with torch.no_grad():
        fields = fitted.model.embeddings(batch).all_fields
        weights = fitted.model.first_order.weight.detach().view(fields.shape[1:])
    total = (fields * weights).sum((1, 2))
    for i in range(fields.shape[1]):
        for j in range(i):
            total = total + (fields[:, i] * fields[:, j]).sum(-1)
    return total


def test_a_folder_gives_the_same_scores(fitted: CTRModel, small_log: ClickLog, tmp_path: Path) -> None:
    fitted.save(tmp_path / "crm")
    again = CTRModel.load(tmp_path / "crm", small_log)
    np.testing.assert_array_equal(again.score(EVENTS), fitted.score(EVENTS))
    assert again.record == fitted.record


def _vectors() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(20, 4)).astype(np.float32)


def test_retrieved_histories_are_earlier_and_the_most_similar(small_log: ClickLog) -> None:
    vectors = _vectors()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    encoder, events = FeatureEncoder(small_log, 3, vectors), np.arange(len(small_log))
    for event, retrieved in zip(events, encoder.histories(events), strict=True):
        retrieved = retrieved[retrieved >= 0]
        past = np.flatnonzero((small_log.user == small_log.user[event]) & (small_log.time < small_log.time[event]))
        assert set(retrieved) <= set(past)
        assert len(retrieved) == min(3, len(past))
        assert (np.diff(small_log.time[retrieved]) >= 0).all()
        similarity = unit[small_log.item[past]] @ unit[small_log.item[event]]
        np.testing.assert_allclose(np.sort(similarity[np.isin(past, retrieved)]), np.sort(similarity)[-3:], atol=1e-6)
    recent = FeatureEncoder(small_log, 3)
    assert not np.array_equal(encoder.histories(events), recent.histories(events))
    whole = FeatureEncoder(small_log, 12, vectors)
    np.testing.assert_array_equal(whole.histories(events), FeatureEncoder(small_log, 12).histories(events))


def test_nothing_at_or_after_the_target_is_read(small_log: ClickLog) -> None:
    """The scores of events stay the same whatever later ratings and items are."""
    found = fit_ctr_model("din", small_log, CTRConfig(epochs=1, max_history=3), embeddings=_vectors())
    events = small_log.rows("valid")
    later = small_log.time > small_log.time[events].max()
    changed = replace(
        small_log,
        item=np.where(later, 0, small_log.item),
        rating=np.where(later, 3.0, small_log.rating).astype(np.float32),
        part=small_log.part,
    )
    encoder = FeatureEncoder(changed, 3, _vectors())
    np.testing.assert_array_equal(CTRModel(found.model, encoder, found.record).score(events), found.score(events))
    own = found.encoder.batch(events[:1])
    assert not np.isin(events, found.encoder.histories(events)[0]).all()
    assert own.rating.shape[1] <= 3


def test_a_folder_keeps_how_histories_are_retrieved(small_log: ClickLog, tmp_path: Path) -> None:
    options = CTRConfig(epochs=1, max_history=3)
    rows = np.asfortranarray(_vectors())  # safetensors holds contiguous tensors only
    similar, recent = (fit_ctr_model("din", small_log, options, embeddings=each) for each in (rows, None))
    assert (similar.record["history"], recent.record["history"]) == ("similar", "recent")
    events = small_log.rows("test")
    for name, found in (("similar", similar), ("recent", recent)):
        found.save(tmp_path / name)
        again = CTRModel.load(tmp_path / name, small_log)
        np.testing.assert_array_equal(again.score(events), found.score(events))
        np.testing.assert_array_equal(again.encoder.histories(events), found.encoder.histories(events))
    assert not np.allclose(similar.score(events), recent.score(events))


def test_the_seed_decides(fitted: CTRModel, small_log: ClickLog) -> None:
    name, network = fitted.record["model"], fitted.model.config
    torch.manual_seed(7)
    same = fit_ctr_model(name, small_log, ONE_EPOCH, network=network)
    other = fit_ctr_model(name, small_log, CTRConfig(epochs=1, seed=1), network=network)
    np.testing.assert_array_equal(same.score(EVENTS), fitted.score(EVENTS))
    assert not np.allclose(other.score(EVENTS), fitted.score(EVENTS))


def test_the_best_epoch_is_restored(small_log: ClickLog) -> None:
    """A fit that stops at the best epoch of a longer one has its weights."""
    longer = fit_ctr_model("dcnv2", small_log, CTRConfig(epochs=8, learning_rate=0.03))
    curve = longer.record["validation_auc"]
    best = int(np.argmax(curve))
    assert len(curve) < 8 or best > 5
    shorter = fit_ctr_model("dcnv2", small_log, CTRConfig(epochs=best + 1, learning_rate=0.03))
    assert shorter.record["validation_auc"] == curve[: best + 1]
    events = small_log.rows("test")
    np.testing.assert_array_equal(shorter.score(events), longer.score(events))


def test_only_training_decides_what_is_known(small_log: ClickLog) -> None:
    encoder = FeatureEncoder(small_log, 60)
    train = small_log.rows("train")
    for field, seen in ((encoder.users[0], small_log.user), (encoder.items[0], small_log.item)):
        assert set(np.flatnonzero(field.table[:, 0] != UNKNOWN)) == set(seen[train])
        assert field.table.max() == field.size - 1
    assert len(small_log.users) > len(set(small_log.user[train]))


def test_unknown_users_of_one_profile_are_alike(fitted: CTRModel, small_log: ClickLog) -> None:
    """A user and an item that training never saw are scored by profile and genre, as if there were no ids."""
    batch = fitted.encoder.batch(small_log.rows("test")[:4])
    known, unknown = (replace(batch, user=[torch.full((4, 1), id_), *batch.user[1:]]) for id_ in (1, UNKNOWN))
    blank = replace(unknown, item=[torch.zeros(4, 1, dtype=torch.int64), *batch.item[1:]])
    with torch.no_grad():
        scores = [fitted.model(each) for each in (known, unknown, blank)]
        embedded = fitted.model.embeddings(blank)
    assert torch.stack(scores).isfinite().all()
    assert not torch.equal(scores[0], scores[1])
    assert not embedded.fields[:, 0].any()
    assert embedded.fields[:, -1].any()


def test_a_failed_write_leaves_nothing(fitted: CTRModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "write_json", full)
    with pytest.raises(LorarecError, match=r"cannot write .*crm: No space left"):
        fitted.save(tmp_path / "crm")
    assert list(tmp_path.iterdir()) == []


def test_few_training_events(small_log: ClickLog) -> None:
    few = fit_ctr_model("deepfm", small_log, ONE_EPOCH, events=small_log.few_shot(40))
    assert few.record["events"] == 40


def test_bad_fits(small_log: ClickLog) -> None:
    liked = small_log.rows("train")[small_log.label[small_log.rows("train")] == 1]
    one_sided = replace(small_log, label=np.where(small_log.part == 1, 0, small_log.label))
    for log, name, options, message in [
        (small_log, "fm", {}, "no click-through model 'fm': choose one of deepfm,"),
        (small_log, "din", {"network": SIMConfig()}, "the config of din must be a NetworkConfig, got a SIMConfig"),
        (small_log, "din", {"events": liked[:0]}, "planted: training events need both labels, but there are none"),
        (small_log, "din", {"events": liked[:9]}, "planted: training events need both labels, but all 9 are clicked"),
        (small_log, "din", {"events": small_log.rows("test")}, "planted: events outside the training part"),
        (one_sided, "din", {}, r"planted: validation events need both labels, but all \d+ are not clicked"),
    ]:
        with pytest.raises(LorarecError, match=message):
            fit_ctr_model(name, log, **options)  # type: ignore[arg-type]
    for option, value in (("epochs", 0), ("max_history", 0), ("learning_rate", 0.0), ("weight_decay", -1.0)):
        with pytest.raises(LorarecError, match=f"option {option} must"):
            CTRConfig(**{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODELS)
def test_a_training_that_diverges_in_its_only_step_is_refused(name: str, small_log: ClickLog) -> None:
    """The weights are large and finite then, so that probabilities are the first that are not numbers."""
    config = CTRConfig(epochs=1, batch_size=100_000, learning_rate=1e30)
    with pytest.raises(LorarecError, match=f"{name}: the training diverged, its scores are not finite: lower the"):
        fit_ctr_model(name, small_log, config)


def test_a_training_that_diverges_is_refused(small_log: ClickLog) -> None:
    with pytest.raises(LorarecError, match=r"din: the training diverged.*lower the learning rate"):
        fit_ctr_model("din", small_log, CTRConfig(epochs=2, learning_rate=1e30))


@pytest.mark.parametrize(
    ("config", "sizes", "message"),
    [
        (AutoIntConfig, {"num_heads": 3}, "option embedding_dim must be a multiple of num_heads, 3, got 16"),
        (SASRecCTRConfig, {"hidden_size": 9}, "option hidden_size must be a multiple of num_heads, 2, got 9"),
        (CaserConfig, {"window": 3}, r"option filter_heights must be numbers from 1 to window, 3, got \(1, 2, 3, 4\)"),
        (CaserConfig, {"filter_heights": (0, 2)}, r"option filter_heights must be numbers from 1 to window, 10"),
        (SIMConfig, {"hidden_units": ()}, "option hidden_units must be sizes of at least 1"),
    ],
)
def test_sizes_that_do_not_fit_together(config: type[NetworkConfig], sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        config(**sizes)


def test_bad_folders(small_log: ClickLog, tmp_path: Path) -> None:
    folder = tmp_path / "crm"
    found = fit_ctr_model("deepfm", small_log, ONE_EPOCH)
    with pytest.raises(LorarecError, match="no events to score"):
        found.score(small_log.rows("test")[:0])
    with pytest.raises(LorarecError, match="crm is not a folder of a click-through model"):
        CTRModel.load(folder, small_log)
    found.save(folder)
    with pytest.raises(LorarecError, match="crm exists already"):
        found.save(folder)
    other = planted_clicks(lambda profile, before, kind: kind < 3, users=40)
    with pytest.raises(LorarecError, match=f"was trained on other data .*not {other.fingerprint}"):
        CTRModel.load(folder, other)
    record = json.loads((folder / "conventional.json").read_text())
    for damage in ({"options": {}}, {"architecture": []}, {"architecture": {"size": 3}}):
        (folder / "conventional.json").write_text(json.dumps({**record, **damage}))
        with pytest.raises(LorarecError, match="does not hold the weights of a deepfm"):
            CTRModel.load(folder, small_log)
    (folder / "conventional.json").write_text(json.dumps(record))
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(LorarecError, match="does not hold the weights of a deepfm"):
        CTRModel.load(folder, small_log)
    (folder / "conventional.json").write_text("{}")
    with pytest.raises(LorarecError, match="does not describe a click-through model"):
        CTRModel.load(folder, small_log)
