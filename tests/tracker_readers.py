"""Runs of trackers that write to a folder, read back by each tracker's own means."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lorarec.training.tracking_config import TRACKERS, is_installed

INSTALLED = [name for name in TRACKERS if is_installed(name)]


@dataclass
class Run:
    """A run as a tracker holds it.

    Attributes:
        name: Name of the run.
        options: Configuration of the run.
        figures: Values by step by the common name of the figure (see `common_name`).
        pictures: Names of the pictures.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, dict[int, float]] = field(default_factory=dict)
    pictures: list[str] = field(default_factory=list)

    def add(self, name: str, step: int, value: float) -> None:
        """Add a value; one that was logged twice for a step is the same."""
        values = self.figures.setdefault(common_name(name), {})
        assert values.setdefault(step, value) == value, (name, step)

    def last(self, name: str) -> float:
        """Return the value of the last step."""
        return self.figures[name][max(self.figures[name])]


def common_name(name: str) -> str:
    """Return the name of a figure that it has in all trackers, which differ in prefixes and in allowed characters."""
    return re.sub(r"[^0-9a-zA-Z]+", "_", name.removeprefix("train/"))


def keep_offline(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let every tracker write to a folder, and none to another machine."""
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        patch.setenv(name, str(folder / "wandb"))
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true"), ("MLFLOW_ALLOW_FILE_STORE", "true")):
        patch.setenv(name, value)
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "TRACKIO_SPACE_ID"):
        patch.delenv(name, raising=False)
    patch.setenv("MLFLOW_TRACKING_URI", (folder / "mlflow").as_uri())
    (folder / "wandb").mkdir(parents=True)
    if "wandb" in INSTALLED:  # it reads its variables once
        importlib.import_module("wandb").teardown()
    if "trackio" in INSTALLED:  # it reads its variable once
        importlib.import_module("trackio.sqlite_storage")
        for module in [each for name, each in sys.modules.items() if name.partition(".")[0] == "trackio"]:
            for name, path in (("TRACKIO_DIR", folder / "trackio"), ("MEDIA_DIR", folder / "trackio" / "media")):
                if isinstance(getattr(module, name, None), Path):
                    patch.setattr(module, name, path)


def runs(tracker: str, folder: Path) -> list[Run]:
    """Return the runs that a tracker has written to a folder, in any order.

    Args:
        folder: Folder of `keep_offline`; for TensorBoard, a folder with a `tensorboard/` of event files.
    """
    return {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}[tracker](folder)


def _tensorboard(folder: Path) -> list[Run]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0, "tensors": 0, "images": 0}).Reload()
    run = Run("")
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            run.add(tag, event.step, event.value)
    text = events.Tensors("args/text_summary")[0].tensor_proto.string_val[0]
    run.options, run.pictures = json.loads(text), events.Tags()["images"]
    return [run]


def _wandb(folder: Path) -> list[Run]:
    found: dict[str, Run] = {}
    for path in sorted(folder.glob("wandb/wandb/offline-run-*/run-*.wandb")):
        for record in _wandb_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run = found.setdefault(record.run.run_id, Run(record.run.display_name))
                run.options |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "config":
                items = record.config.update
                run.options |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
            elif kind == "history":
                keys = [(item.key, *item.nested_key) for item in record.history.item]
                values = [json.loads(item.value_json) for item in record.history.item]
                named = {tuple(filter(None, key)): value for key, value in zip(keys, values, strict=True)}
                step = named.pop(("train/global_step",), None)
                run.pictures += [key[0] for key, value in named.items() if value == "image-file"]
                for key, value in named.items():
                    if len(key) == 1 and not key[0].startswith("_"):
                        run.add(key[0], step, value)
    return list(found.values())


def _wandb_records(path: Path) -> Iterator[Any]:
    """Yield the records of a file in LevelDB's log format, which has blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole record, or its last part
            yield Record.FromString(parts)
            parts = b""


def _mlflow(folder: Path) -> list[Run]:
    from mlflow import MlflowClient

    client, found = MlflowClient((folder / "mlflow").as_uri()), []
    for each in client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]):
        run = Run(each.info.run_name, dict(each.data.params))
        for name in each.data.metrics:
            for metric in client.get_metric_history(each.info.run_id, name):
                run.add(name, metric.step, metric.value)
        run.pictures = [path.path.removesuffix(".png") for path in client.list_artifacts(each.info.run_id)]
        found.append(run)
    return found


def _trackio(folder: Path) -> list[Run]:
    from trackio.sqlite_storage import SQLiteStorage

    found = []
    for project in SQLiteStorage.get_projects():
        for name in SQLiteStorage.get_runs(project):
            run = Run(name, SQLiteStorage.get_run_config(project, name) or {})
            for values in SQLiteStorage.get_logs(project, name):
                step = values["train/global_step"]
                for figure, value in values.items():
                    if isinstance(value, dict):
                        run.pictures.append(figure)
                    elif figure not in ("step", "timestamp", "train/global_step"):
                        run.add(figure, step, value)
            found.append(run)
    return found
