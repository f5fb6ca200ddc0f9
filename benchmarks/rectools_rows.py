"""SASRec and BPR-MF of RecTools, for next_item_rivals.py: runs in an environment that has RecTools, not lorarec.

python rectools_rows.py LOG.npz OPTIONS.json    # prints a line of JSON; writes scores beside LOG.npz
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import ImplicitBPRWrapperModel
from rectools.models.nn.transformers.sasrec import SASRecModel


class Clock(lightning.Callback):  # type: ignore[misc]
    """Measures the time of each epoch in seconds."""

    def __init__(self) -> None:
        self.epochs: list[float] = []

    def on_train_epoch_start(self, *_: object) -> None:
        self.began = time.perf_counter()

    def on_train_epoch_end(self, *_: object) -> None:
        self.epochs.append(time.perf_counter() - self.began)


def interactions(flat: np.ndarray, ends: np.ndarray) -> pd.DataFrame:
    """Return RecTools' table of interactions from histories of item numbers, which follow each other."""
    users = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    times = pd.to_datetime(np.arange(len(flat)), unit="s")
    return pd.DataFrame({Columns.User: users, Columns.Item: flat, Columns.Weight: 1.0, Columns.Datetime: times})


def sasrec(options: dict[str, Any], clock: Clock) -> SASRecModel:
    def trainer() -> lightning.Trainer:
        return lightning.Trainer(
            accelerator="cpu",
            max_epochs=options["epochs"],
            min_epochs=options["epochs"],
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    lightning.seed_everything(options["seed"])
    return SASRecModel(
        n_blocks=options["num_layers"],
        n_heads=1,
        n_factors=options["hidden_size"],
        dropout_rate=options["dropout"],
        session_max_len=options["max_history"],
        loss="softmax",
        lr=options["learning_rate"],
        batch_size=options["batch_size"],
        epochs=options["epochs"],
        get_trainer_func=trainer,
    )


def bpr(options: dict[str, Any]) -> ImplicitBPRWrapperModel:
    from implicit.bpr import BayesianPersonalizedRanking

    return ImplicitBPRWrapperModel(
        BayesianPersonalizedRanking(
            factors=options["hidden_size"],
            learning_rate=options["learning_rate"],
            regularization=options["weight_decay"],
            iterations=options["epochs"],
            random_state=options["seed"],
            num_threads=1,
            use_gpu=False,
        )
    )


def main() -> None:
    path, options = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    log = np.load(path)
    train = Dataset.construct(interactions(log["train"], log["train_ends"]))
    clock = Clock()
    model = sasrec(options, clock) if options["system"] == "sasrec" else bpr(options)
    began = time.perf_counter()
    model.fit(train)
    seconds = time.perf_counter() - began
    case_data = (
        Dataset.construct(interactions(log["cases"], log["cases_ends"])) if options["system"] == "sasrec" else train
    )
    users = log["users"]
    found = model.recommend(users, case_data, k=int(log["train"].max()) + 1, filter_viewed=False)
    # The last column is for candidates without training interactions, whose number is -1.
    scores = np.full((int(users.max()) + 1, int(log["train"].max()) + 2), -np.inf, np.float32)
    scores[found[Columns.User], found[Columns.Item]] = found[Columns.Score]
    np.save(path.with_name("scores.npy"), scores[users[:, None], log["candidates"]])
    lengths = np.diff(log["train_ends"], prepend=0)
    read = np.minimum(lengths - 1, options["max_history"]) if options["system"] == "sasrec" else lengths
    print(json.dumps({"seconds": seconds, "epochs": clock.epochs, "learned": int(read.sum())}))


if __name__ == "__main__":
    main()
