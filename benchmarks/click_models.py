"""Parameters, AUC and log loss of every click-through model on one click log, divided 8:1:1 by global time.

    python benchmarks/click_models.py [DATASET] [--models din sim] [--positive-from 4] [--epochs 20] [--seed 42]

DATASET is a dataset folder with ratings; without it the bundled MovieLens sample is used.

With --as-recbole the log is that of RecBole's published benchmark on MovieLens-1M, for comparison with its figures:
ratings of 3 are left out, the parts are drawn at random, and networks and learning rate are those that it found best.
Besides its fields the models read the previous event, since they always read a history.

    python benchmarks/click_models.py data/ml-1m --as-recbole --models deepfm autoint dcnv2
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import polars as pl

from lorarec.ctr import MODELS, CTRConfig, NetworkConfig, fit_ctr_model
from lorarec.data import Dataset
from lorarec.data.click_logs import ClickLog, click_log
from lorarec.data.columns import RATING
from lorarec.data.sample import load_sample
from lorarec.metrics.classification import auc, auc_interval, log_loss

#: Final layers of RecBole's best trial of DeepFM and AutoInt; DCNv2's has two layers of 256.
RECBOLE_HIDDEN_UNITS = (256, 256, 256)


def recbole_log(dataset: Dataset, seed: int) -> ClickLog:
    """Ratings of 4 and 5 against 1 and 2, divided 8:1:1 at random."""
    rows = dataset.interactions.filter(pl.col(RATING) != 3)
    log = click_log(Dataset.from_frames(dataset.name, rows, dataset.items, users=dataset.users))
    tenth = np.random.default_rng(seed).permutation(len(log)) * 10 // len(log)
    return replace(log, part=np.maximum(tenth - 7, 0).astype(log.part.dtype))


def row(name: str, log: ClickLog, config: CTRConfig, hidden_units: tuple[int, ...]) -> str:
    """Train one model and return its row of the table."""
    start = time.perf_counter()
    network = MODELS[name].config_class(hidden_units=hidden_units)
    found = fit_ctr_model(name, log, config, network=network, progress=True)
    seconds = time.perf_counter() - start
    events = log.rows("test")
    scores, labels = found.score(events), log.label[events]
    low, high = auc_interval(scores, labels)
    epochs = len(found.record["validation_auc"])
    figures = f"{auc(scores, labels):8.4f}  [{low:.4f}, {high:.4f}] {log_loss(scores, labels).mean():9.4f}"
    return f"{name:8} {found.record['parameters']:>10,} {figures} {epochs:>6} {seconds:>8.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--positive-from", type=float, default=4.0)
    parser.add_argument("--epochs", type=int, default=CTRConfig.epochs)
    parser.add_argument("--seed", type=int, default=CTRConfig.seed)
    parser.add_argument("--as-recbole", action="store_true", help="RecBole's division and networks; see above")
    arguments = parser.parse_args()
    dataset = Dataset.load(arguments.dataset) if arguments.dataset else load_sample()
    config, hidden_units = CTRConfig(epochs=arguments.epochs, seed=arguments.seed), NetworkConfig.hidden_units
    if arguments.as_recbole:
        log = recbole_log(dataset, arguments.seed)
        config = replace(config, batch_size=2048, learning_rate=5e-3, max_history=1)
        hidden_units = RECBOLE_HIDDEN_UNITS
    else:
        log = click_log(dataset, positive_from=arguments.positive_from)
    sizes = ", ".join(f"{len(log.rows(part)):,} {part}" for part in ("train", "valid", "test"))
    print(f"{dataset.name}: {len(log.users):,} users, {len(dataset.items):,} items; {sizes}")
    print(f"{log.label.mean():.1%} of the ratings are clicks")
    print("model    parameters      AUC  95% interval     log loss epochs  seconds")
    for name in arguments.models:
        print(row(name, log, config, hidden_units), flush=True)


if __name__ == "__main__":
    main()
