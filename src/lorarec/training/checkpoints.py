"""The folder of checkpoints of an unfinished training run."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from accelerate import PartialState
from transformers.trainer_callback import TrainerState

from lorarec.errors import LorarecError
from lorarec.io import JsonObject, RunDir, disk_errors, only_writer, read_json, remove_folder, write_json

STATE, LIMIT = "trainer_state.json", "pass_limit.json"


class Checkpoints:
    """The folder `OUT.checkpoints`, which exists from the start of training until the adapter is written.

    Args:
        out: Path of the adapter folder to write.
        identity: Everything that decides the weights; a run with another identity cannot be resumed.

    Attributes:
        folder: Path of the folder of checkpoints.
    """

    def __init__(self, out: Path, identity: JsonObject) -> None:
        self.folder = out.with_name(f"{out.name}.checkpoints")
        self.run_dir = RunDir(self.folder, identity)

    def refuse(self, resume: bool, overwrite: bool) -> None:
        """Refuse a run that may not start.

        Raises:
            LorarecError: If an interrupted run is neither resumed nor overwritten, or another run is resumed.
        """
        if not self.folder.exists() or (overwrite and not resume):
            return
        if not resume:
            raise LorarecError(
                f"{self.folder} holds an interrupted run: pass resume=True to continue or overwrite=True to restart"
            )
        self.run_dir.refuse_other_run()

    @contextmanager
    def open(self, resume: bool, state: PartialState) -> Iterator[None]:
        """Create the folder, which is emptied unless resuming; after an error it remains if there is a checkpoint.

        Args:
            resume: Keep the checkpoints.
            state: State of the processes; the main process writes, after every process has checked the folder.

        Raises:
            LorarecError: If the disk cannot be written to, or another run writes to the folder.
        """
        state.wait_for_everyone()
        if state.is_main_process:
            self._start(resume)
        state.wait_for_everyone()
        with ExitStack() as stack:
            if state.is_main_process:
                stack.enter_context(only_writer(self.folder))
                stack.callback(self._drop_if_empty)
            stack.enter_context(disk_errors(self.folder, only_disk=True))
            yield

    def _start(self, resume: bool) -> None:
        with disk_errors(self.folder.parent):
            if self.folder.exists():
                with only_writer(self.folder):
                    if not resume:
                        remove_folder(self.folder)
        self.run_dir.open()

    def _drop_if_empty(self) -> None:
        if self.latest() is None:
            remove_folder(self.folder)

    def latest(self) -> str | None:
        """Return the path of the latest complete checkpoint.

        The state file of a checkpoint is written last; after a kill it may be missing or truncated.
        """
        checkpoints = sorted(self.run_dir.finished("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2]))
        return next((str(path) for path in checkpoints if _readable(path / STATE)), None)

    @property
    def limit(self) -> int | None:
        """Number of tokens of a forward pass for which the memory sufficed when the run began; None if not recorded.

        A resumed run has the same micro-batches, however much memory there is then.
        """
        path = self.folder / LIMIT
        return int(read_json(path)["tokens"]) if path.is_file() else None

    @limit.setter
    def limit(self, tokens: int) -> None:
        write_json(self.folder / LIMIT, {"tokens": tokens})

    def remove(self) -> None:
        """Delete the folder."""
        remove_folder(self.folder)


def _readable(path: Path) -> bool:
    try:
        TrainerState.load_from_json(str(path))
    except (OSError, ValueError, TypeError):
        return False
    return True
