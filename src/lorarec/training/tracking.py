"""Runs in experiment trackers, of the Trainer and of other training loops."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from lorarec.errors import LorarecError
from lorarec.io import JsonObject, read_json, write_json
from lorarec.lora import AdapterRecord
from lorarec.training.trackers import RUNS, RunInfo, TrackerRun
from lorarec.training.tracking_config import TrackingConfig

#: Name of the file with the ids of the runs, in the folder of the run.
RUN_IDS = "tracked_runs.json"


class TrackedArguments(TrainingArguments):
    """The Trainer's arguments, in place of which trackers show the options of lorarec.

    Several of the Trainer's own would be misleading there: its batches are parts of a step, its epoch is the whole run.

    Attributes:
        shown: Options that trackers show.
    """

    shown: Mapping[str, object] = {}

    def to_dict(self) -> JsonObject:
        """Return what the trackers' callbacks show as the configuration of a run."""
        return dict(self.shown)


def shown_options(record: AdapterRecord) -> JsonObject:
    """Return what trackers show of the record of an adapter: its backbone, the names of its datasets, its options."""
    contents = record.to_json()
    start = {} if record.start_from is None else {"start_from": record.start_from.path}
    return {
        "backbone": record.backbone_id,
        "backbone_fingerprint": record.backbone_fingerprint,
        "datasets": ", ".join(dataset["name"] for dataset in record.datasets),
        "readout": contents["readout"],
        **contents["options"],
        **start,
    }


class TrackedRun:
    """A run in all trackers that were asked for; there may be none.

    The Trainer calls `callbacks` itself. Other training loops log by `log`.
    """

    def __init__(self, runs: Sequence[TrackerRun], arguments: TrainingArguments) -> None:
        self._runs = runs
        self._arguments = arguments
        self._state, self._control = TrainerState(), TrainerControl()
        self._has_logged = False

    @property
    def callbacks(self) -> list[TrainerCallback]:
        """Callbacks of the Trainer that log to the trackers."""
        return [run.callback for run in self._runs]

    def log(self, figures: Mapping[str, float], step: int | None = None) -> None:
        """Log figures at a step.

        Args:
            figures: Figures by name. Trackers, except for MLflow, replace `eval_` and `test_` before a name by `eval/`
                and `test/`, and put `train/` before all others.
            step: Optimizer step; that of the last call if None, at first 0.
        """
        if not self._has_logged:
            for callback in self.callbacks:
                callback.on_train_begin(self._arguments, self._state, self._control)
            self._has_logged = True
        self._state.global_step = self._state.global_step if step is None else step
        for callback in self.callbacks:
            callback.on_log(self._arguments, self._state, self._control, logs=dict(figures))

    def log_pictures(self, pictures: Iterable[Path]) -> None:
        """Log PNG files by their names, after figures."""
        for path in pictures:
            for run in self._runs:
                run.log_picture(path.stem, path, self._state.global_step)

    def finish(self, failed: bool = False) -> None:
        """End the run."""
        if self._has_logged and not failed:
            for callback in self.callbacks:
                callback.on_train_end(self._arguments, self._state, self._control)
        for run in self._runs:
            run.finish(failed)


@contextmanager
def tracked_run(
    tracking: TrackingConfig,
    name: str,
    folder: Path,
    shown: Mapping[str, object],
    arguments: TrackedArguments | None = None,
) -> Iterator[TrackedRun]:
    """Start a run in every tracker, or continue the one whose ids are in the folder; end it after the block.

    Args:
        tracking: Options.
        name: Name of the run if `tracking` has none.
        folder: Path of the folder that gets TensorBoard's files, and the ids of the runs.
        shown: Options that trackers show as the configuration of the run.
        arguments: Arguments of the Trainer, if there is one.

    Raises:
        LorarecError: If a tracker cannot start or continue the run.
    """
    arguments = arguments or TrackedArguments(output_dir=str(folder), report_to=[])
    arguments.shown = shown
    ids: dict[str, str] = read_json(folder / RUN_IDS) if (folder / RUN_IDS).is_file() else {}
    runs: list[TrackerRun] = []
    run, failed = TrackedRun(runs, arguments), True
    try:
        for tracker in tracking.trackers:
            info = RunInfo(tracking.run_name or name, tracking.project, folder, ids.get(tracker))
            try:
                runs.append(RUNS[tracker](info, arguments))
            except Exception as error:
                reason = " ".join(str(error).split())
                raise LorarecError(f"tracker {tracker} cannot start the run {info.name}: {reason}") from error
        if runs:
            started = dict(zip(tracking.trackers, (each.id for each in runs), strict=True))
            write_json(folder / RUN_IDS, ids | started)
        yield run
        failed = False
    finally:
        run.finish(failed)
