"""Runs in processes of their own: killed and resumed, and several at once."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lorarec.backbone.load import Backbone
from lorarec.data import Dataset
from lorarec.training import TrainingConfig, train
from tests.factories import save_backbone

SCRIPT = """
import json, sys
import torch
from lorarec.backbone.load import Backbone
from lorarec.data import Dataset
from lorarec.training import TrainingConfig, train

torch.set_num_threads(1)
folder, out, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
train(Backbone.from_pretrained(f"{folder}/backbone"), [Dataset.load(f"{folder}/data")], out, TrainingConfig(**options))
"""
OPTIONS = {
    "batch_size": 8,
    "negatives": 4,
    "r": 4,
    "learning_rate": 1e-3,
    "lora_dropout": 0.1,
    "token_budget": 200,
    "eval_users": 6,
}


@pytest.fixture
def home(backbone, shop, tmp_path):
    save_backbone(backbone, tmp_path / "backbone")
    shop[0].save(tmp_path / "data")
    shop[1].save(tmp_path / "data" / "split")
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def here(home, name, options, resume=False):
    backbone, dataset = Backbone.from_pretrained(home / "backbone"), Dataset.load(home / "data")
    return train(backbone, [dataset], home / name, TrainingConfig(**options), resume=resume).folder


def wait_for(path, process) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_and_resumed_run_ends_with_the_same_weights(home, largest_difference) -> None:
    options = OPTIONS | {"epochs": 3, "eval_steps": 2, "patience": 50}
    whole = here(home, "whole", options)
    command = [sys.executable, "train.py", str(home), str(home / "killed"), json.dumps(options)]
    process = subprocess.Popen(command, cwd=home, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    wait_for(home / "killed.checkpoints" / "checkpoint-4" / "trainer_state.json", process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (home / "killed").exists()
    resumed = here(home, "killed", options, resume=True)
    assert largest_difference(whole, resumed) == 0
    records = [json.loads((folder / "lorarec.json").read_text())["training"] for folder in (whole, resumed)]
    assert records[0] == records[1]
    assert not (home / "killed.checkpoints").exists()


def test_two_processes_give_the_weights_of_one(home, largest_difference) -> None:
    """Gradients are added in another order, so the weights agree to float32 rounding, which Adam amplifies."""
    options = OPTIONS | {"epochs": 1, "eval_steps": 4}
    single = here(home, "alone", options)
    # `--multi_gpu` is how accelerate starts torchrun; with `--cpu` it would wait for an MPI launcher to do it.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += ["train.py", str(home), str(home / "together"), json.dumps(options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert largest_difference(single, home / "together") < 1e-5
    records = [json.loads((home / name / "lorarec.json").read_text()) for name in ("alone", "together")]
    for one, other in zip(*(record["training"]["evaluations"] for record in records), strict=True):
        assert one == pytest.approx(other, abs=1e-6)
    assert [record["training"]["processes"] for record in records] == [1, 2]
