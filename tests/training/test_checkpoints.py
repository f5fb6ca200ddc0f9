from contextlib import suppress

import pytest
from accelerate import PartialState
from transformers.trainer_callback import TrainerState

from lorarec.errors import LorarecError
from lorarec.training.checkpoints import Checkpoints

RUN = {"backbone": {"id": "b"}, "options": {"lr": 0.1}}


def interrupted(folder, steps=()) -> Checkpoints:
    checkpoints = Checkpoints(folder / "adapter", RUN)
    with suppress(KeyboardInterrupt), checkpoints.open(False, PartialState()):
        for step in steps:
            path = checkpoints.folder / f"checkpoint-{step}"
            path.mkdir()
            TrainerState(global_step=step).save_to_json(str(path / "trainer_state.json"))
        raise KeyboardInterrupt
    return checkpoints


def test_latest_is_the_newest_whole_one(tmp_path) -> None:
    checkpoints = interrupted(tmp_path, (2, 10, 9))
    assert checkpoints.latest().endswith("checkpoint-10")
    state = checkpoints.folder / "checkpoint-10" / "trainer_state.json"
    state.write_text(state.read_text()[:40])
    assert checkpoints.latest().endswith("checkpoint-9")
    (checkpoints.folder / "checkpoint-11").mkdir()
    assert checkpoints.latest().endswith("checkpoint-9")


def test_nothing_stays_without_a_checkpoint(tmp_path) -> None:
    interrupted(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_run_is_not_lost_by_accident(tmp_path) -> None:
    interrupted(tmp_path, (1,))
    same = Checkpoints(tmp_path / "adapter", RUN)
    with pytest.raises(LorarecError, match="holds an interrupted run: pass resume=True"):
        same.refuse(resume=False, overwrite=False)
    same.refuse(resume=False, overwrite=True)
    same.refuse(resume=True, overwrite=False)


def test_another_run_is_not_resumed(tmp_path) -> None:
    interrupted(tmp_path, (1,))
    other = Checkpoints(tmp_path / "adapter", RUN | {"options": {"lr": 0.2}})
    with pytest.raises(LorarecError, match=r"options\.lr was 0\.1 and is now 0\.2"):
        other.refuse(resume=True, overwrite=False)


def test_starting_again_empties_the_folder(tmp_path) -> None:
    checkpoints = interrupted(tmp_path, (1,))
    with suppress(KeyboardInterrupt), checkpoints.open(True, PartialState()):
        assert checkpoints.latest() is not None
        raise KeyboardInterrupt
    with suppress(KeyboardInterrupt), checkpoints.open(False, PartialState()):
        assert checkpoints.latest() is None
        raise KeyboardInterrupt
