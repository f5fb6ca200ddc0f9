"""Runs in single experiment trackers: how each is started or continued, shows a picture, and ends.

Figures are logged by the callbacks of transformers. They leave the start and the end of a run partly to the user, and
have nothing for pictures.
"""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from transformers import TrainerCallback, TrainingArguments
from transformers.integrations import MLflowCallback, TensorBoardCallback, TrackioCallback, WandbCallback

#: Name of the folder of TensorBoard's files in an output folder.
LOGS = "tensorboard"
#: Project of runs that have none.
PROJECT = "lorarec"


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run before a tracker starts it.

    Attributes:
        name: Name of the run.
        project: Project of the run; None for the tracker's own choice.
        folder: Path of the folder that gets local files.
        id: Id of the run in this tracker if it is continued.
    """

    name: str
    project: str | None
    folder: Path
    id: str | None = None

    def project_from(self, variable: str) -> str:
        """Return the project: the given one, that of an environment variable of the tracker, or `lorarec`."""
        return self.project or os.environ.get(variable) or PROJECT


class TrackerRun(Protocol):
    """The protocol of runs in one tracker."""

    @property
    def id(self) -> str:
        """Id by which the tracker continues the run."""

    @property
    def callback(self) -> TrainerCallback:
        """Callback that logs the figures of the run."""

    def log_picture(self, name: str, path: Path, step: int) -> None:
        """Log the PNG file at `path`."""

    def finish(self, failed: bool) -> None:
        """End the run after all events of the callback."""


class TensorBoardRun:
    """Event files in the folder `tensorboard` of the run's folder."""

    def __init__(self, run: RunInfo, arguments: TrainingArguments) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.id = LOGS
        self.writer = SummaryWriter(str(run.folder / LOGS))
        self.callback = TensorBoardCallback(self.writer)

    def log_picture(self, name: str, path: Path, step: int) -> None:
        from PIL import Image

        with Image.open(path) as picture:
            self.writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        self.writer.flush()

    def finish(self, failed: bool) -> None:
        self.writer.close()


class WandbRun:
    """A run of Weights & Biases; one that the caller has opened is used and left open.

    Output of the terminal is not captured, since a program may print titles and users there.
    """

    def __init__(self, run: RunInfo, arguments: TrainingArguments) -> None:
        import wandb

        self._wandb: Any = wandb
        self._is_own = self._wandb.run is None
        if self._is_own:
            self._wandb.init(
                project=run.project_from("WANDB_PROJECT"),
                name=run.name,
                id=run.id,
                resume="allow",
                settings=self._wandb.Settings(console="off"),
            )
        self.id: str = self._wandb.run.id
        self.callback = WandbCallback()

    def log_picture(self, name: str, path: Path, step: int) -> None:
        self._wandb.log({name: self._wandb.Image(str(path)), "train/global_step": step})

    def finish(self, failed: bool) -> None:
        if self._is_own:
            self._wandb.finish(exit_code=int(failed))


class MLflowRun:
    """A run of MLflow; one that the caller has started, or names by MLFLOW_RUN_ID, is used."""

    def __init__(self, run: RunInfo, arguments: TrainingArguments) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        self._is_own = self._mlflow.active_run() is None
        named = os.environ.get("MLFLOW_RUN_ID")  # the callback starts that run
        if self._is_own and not named:
            if run.id:
                self._mlflow.start_run(run_id=run.id)
            else:
                experiment = self._mlflow.set_experiment(run.project_from("MLFLOW_EXPERIMENT_NAME"))
                self._mlflow.start_run(experiment_id=experiment.experiment_id, run_name=run.name)
        self.id: str = named or self._mlflow.active_run().info.run_id
        self.callback = MLflowCallback()

    def log_picture(self, name: str, path: Path, step: int) -> None:
        self._mlflow.log_artifact(str(path))

    def finish(self, failed: bool) -> None:
        self._mlflow.flush_async_logging()
        if self._is_own:
            self._mlflow.end_run("FAILED" if failed else "FINISHED")


class TrackioRun:
    """A run of Trackio, which knows runs by their names: a new one has random characters behind its name.

    Its callback starts and ends it.
    """

    def __init__(self, run: RunInfo, arguments: TrainingArguments) -> None:
        import trackio

        self._trackio: Any = trackio
        self.id = run.id or f"{run.name}-{secrets.token_hex(3)}"
        arguments.run_name, arguments.project = self.id, run.project or PROJECT
        arguments.trackio_static_space_id = False
        self.callback = TrackioCallback()

    def log_picture(self, name: str, path: Path, step: int) -> None:
        self._trackio.log({name: self._trackio.Image(str(path)), "train/global_step": step})

    def finish(self, failed: bool) -> None:
        if self.callback._initialized:  # training ended before the callback did
            self._trackio.finish()


RUNS: dict[str, Callable[[RunInfo, TrainingArguments], TrackerRun]] = {
    "tensorboard": TensorBoardRun,
    "wandb": WandbRun,
    "mlflow": MLflowRun,
    "trackio": TrackioRun,
}
