"""Training that reports to trackers, all offline."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from lorarec.data import leave_one_out
from lorarec.errors import LorarecError
from lorarec.training import TrackingConfig, TrainingConfig, tracking_config, train
from lorarec.training.tracking_config import TRACKERS, is_installed
from tests.factories import dataset_of, hot_backbone
from tests.tracker_readers import INSTALLED, common_name, keep_offline, runs

#: Options of a training of six steps.
QUICK: dict[str, Any] = {
    "samples": 12,
    "batch_size": 4,
    "negatives": 4,
    "r": 2,
    "epochs": 2,
    "eval_users": 4,
    "eval_steps": 2,
}


@pytest.fixture(scope="module")
def shared():
    """A backbone for all tests here: training does not change it."""
    return hot_backbone()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that all trackers write to."""
    keep_offline(monkeypatch, tmp_path / "trackers")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def secrets():
    """A dataset whose titles and ids are nowhere else."""
    titles = {f"sku-{item:05}": f"hot thing-{item:05}" for item in range(40)}
    ids = list(titles)
    rows = [(f"customer-{user:05}", ids[(user * 7 + k * 3) % 40], k) for user in range(20) for k in range(6)]
    dataset = dataset_of(rows, titles, "shop")
    return dataset, leave_one_out(dataset, new_items=0, negatives=4)


class Stop(TrainerCallback):
    """Interrupts the training at a step, as a user does by Ctrl+C."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


class Recorder(TrainerCallback):
    """Remembers what is logged."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[int, float]] = {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        for name, value in logs.items():
            self.figures.setdefault(common_name(name), {})[state.global_step] = value


@pytest.mark.parametrize(
    ("given", "trackers"),
    [
        ("none", ()),
        ((), ()),
        ("tensorboard", ("tensorboard",)),
        (" mlflow, wandb,mlflow", ("mlflow", "wandb")),
        (["trackio", "tensorboard"], ("trackio", "tensorboard")),
        ("auto", ("tensorboard",)),
    ],
)
def test_trackers_by_name(monkeypatch: pytest.MonkeyPatch, given, trackers) -> None:
    monkeypatch.setattr(tracking_config, "is_installed", lambda package: True)
    assert TrackingConfig(report_to=given).trackers == trackers


def test_auto_reports_nothing_without_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_config, "is_installed", lambda package: False)
    assert TrackingConfig().trackers == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("comet", "option report_to has no tracker 'comet': choose from auto, none, tensorboard, wandb, mlflow"),
        ("none,tensorboard", "option report_to has 'none' beside other trackers"),
        (["wandb", "auto"], "option report_to has 'auto' beside other trackers"),
        ("wandb", r"tracker wandb is not installed: pip install 'lorarec\[wandb\]'"),
        ("trackio", "tracker trackio is not installed: pip install trackio"),
    ],
)
def test_trackers_that_are_refused(monkeypatch: pytest.MonkeyPatch, given, message) -> None:
    monkeypatch.setattr(tracking_config, "is_installed", lambda package: False)
    with pytest.raises(LorarecError, match=message):
        TrackingConfig(report_to=given)


def test_a_folder_is_no_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_such_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed("no_such_tracker")
    assert is_installed("lorarec")


def test_all_trackers_get_the_figures_of_the_record(shared, secrets, home: Path) -> None:
    recorder = Recorder()
    adapter = train(
        shared,
        [secrets],
        home / "adapter",
        TrainingConfig(**QUICK),
        tracking=TrackingConfig(report_to=INSTALLED, project="films", run_name="first"),
        callbacks=[recorder],
    )
    record = json.loads((adapter.folder / "lorarec.json").read_text())
    training = record["training"]
    expected = recorder.figures
    for metric in ("ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10"):
        evaluations = {each["step"]: each[metric] for each in training["evaluations"]}
        assert expected[f"eval_{common_name(metric)}"] == evaluations
        best = {training["steps"]: training["validation"][metric]}
        assert expected[f"eval_best_{common_name(metric)}"] == best
    assert expected["loss"][training["steps"]] == training["loss"]
    assert max(expected["epoch"].values()) == QUICK["epochs"]
    assert len(expected["loss"]) == len(expected["learning_rate"]) == training["steps"]
    for name in INSTALLED:
        (found,) = runs(name, adapter.folder if name == "tensorboard" else home / "trackers")
        digits = 1e-6 if name == "tensorboard" else 0
        assert found.figures.keys() == expected.keys(), name
        for figure, values in expected.items():
            assert found.figures[figure] == pytest.approx(values, rel=digits, abs=digits), (name, figure)
        assert found.name.startswith("first") or name == "tensorboard"
        assert str(found.options["negatives"]) == "4", name
        assert str(found.options["epochs"]) == "2", name
        assert found.options["datasets"] == "shop", name
    everything = b"".join(path.read_bytes() for path in (home / "trackers").rglob("*") if path.is_file())
    everything += b"".join(path.read_bytes() for path in (adapter.folder / "tensorboard").rglob("*"))
    assert b"learning_rate" in everything
    for secret in (b"customer-00", b"sku-00", b"thing-00"):
        assert secret not in everything


@pytest.fixture(scope="module")
def uninterrupted(shared, secrets, tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """The figures of a run that was not interrupted and reports to no tracker."""
    recorder, out = Recorder(), tmp_path_factory.mktemp("uninterrupted") / "adapter"
    train(shared, [secrets], out, TrainingConfig(**QUICK), tracking=TrackingConfig("none"), callbacks=[recorder])
    assert not (out / "tensorboard").exists()
    return recorder


@pytest.mark.parametrize("name", TRACKERS)
def test_a_resumed_run_goes_on_in_the_tracker(shared, secrets, uninterrupted, home: Path, name: str) -> None:
    if name not in INSTALLED:
        pytest.skip(f"{name} is not installed")
    config, tracking = TrainingConfig(**QUICK), TrackingConfig(report_to=name)
    with pytest.raises(KeyboardInterrupt):
        train(shared, [secrets], home / "adapter", config, tracking=tracking, callbacks=[Stop(3)])
    recorder = Recorder()
    train(shared, [secrets], home / "adapter", config, tracking=tracking, callbacks=[recorder], resume=True)
    assert min(recorder.figures["loss"]) == 3
    digits = 1e-6 if name == "tensorboard" else 0
    (found,) = runs(name, home / ("adapter" if name == "tensorboard" else "trackers"))
    for figure, values in uninterrupted.figures.items():
        assert found.figures[figure] == pytest.approx(values, rel=digits, abs=digits), figure


def test_a_second_run_of_one_process_is_a_run_of_its_own(shared, secrets, home: Path) -> None:
    config = TrainingConfig(**QUICK | {"epochs": 1, "eval_users": 0})
    for seed in (1, 2):
        out = home / str(seed)
        train(shared, [secrets], out, config, tracking=TrackingConfig(report_to=INSTALLED, run_name="same name"))
    for name in set(INSTALLED) - {"tensorboard"}:
        assert len(runs(name, home / "trackers")) == 2, name


def test_a_callback_may_stop_the_training(shared, secrets, tmp_path: Path) -> None:
    class StopAtStep(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 3

    adapter = train(shared, [secrets], tmp_path / "adapter", TrainingConfig(**QUICK), callbacks=[StopAtStep()])
    assert json.loads((adapter.folder / "lorarec.json").read_text())["training"]["steps"] == 3


def test_a_tracker_that_cannot_start_is_named(shared, secrets, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "mlflow" not in INSTALLED:
        pytest.skip("mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "no-such-scheme://host")
    with pytest.raises(LorarecError, match="tracker mlflow cannot start the run adapter: "):
        train(shared, [secrets], home / "adapter", TrainingConfig(**QUICK), tracking=TrackingConfig("mlflow"))
    assert not (home / "adapter.checkpoints").exists()
