"""The folder of checkpoints beside an unfinished adapter: what run it belongs to and where it can go on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from accelerate import PartialState
from transformers.trainer_callback import TrainerState

from lorarec.errors import LorarecError
from lorarec.io import JsonObject, RunDir, disk_errors, only_writer, remove_folder

STATE = "trainer_state.json"


class Checkpoints:
    """`OUT.checkpoints`: made when training starts, removed when the adapter is written.

    Args:
        out: the adapter folder to be.
        identity: everything that decides the weights; a run is only resumed as what it was.
    """

    def __init__(self, out: Path, identity: JsonObject) -> None:
        self.folder = out.with_name(f"{out.name}.checkpoints")
        self.run_dir = RunDir(self.folder, identity)

    def refuse(self, resume: bool, overwrite: bool) -> None:
        """Raise unless a run may start here.

        Raises:
            LorarecError: an interrupted run is here and is neither resumed nor overwritten, or it was another run.
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
        """Make the folder, emptied unless resuming; an error leaves it only if there is something to resume.

        Args:
            state: the main process does the work, after every process has looked at what was there.

        Raises:
            LorarecError: the disk cannot be written to, or another run writes to the folder.
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
        """The newest whole checkpoint. Its state file is written last, so a killed run leaves it missing or cut."""
        found = sorted(self.run_dir.finished("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2]))
        return next((str(path) for path in found if _readable(path / STATE)), None)

    def remove(self) -> None:
        """Delete the folder: the adapter is written."""
        remove_folder(self.folder)


def _readable(path: Path) -> bool:
    try:
        TrainerState.load_from_json(str(path))
    except (OSError, ValueError, TypeError):
        return False
    return True
