"""Parameters, AUC and log loss of every conventional recommender on one click log, cut 8:1:1 by global time.

    python benchmarks/click_models.py [DATASET] [--models din sim] [--positive-from 4] [--epochs 20] [--seed 42]

DATASET is a dataset folder with ratings; without it the bundled MovieLens sample is used.
"""

import argparse
import time

from lorarec.conventional import MODELS, FitOptions, fit
from lorarec.data import Dataset
from lorarec.data.clicks import ClickLog, click_log
from lorarec.data.sample import load_sample
from lorarec.metrics.clicks import auc, auc_interval, log_loss


def row(name: str, log: ClickLog, options: FitOptions) -> str:
    """Train one model and describe it in a line of the table."""
    start = time.perf_counter()
    found = fit(name, log, options, progress=True)
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
    parser.add_argument("--epochs", type=int, default=FitOptions.epochs)
    parser.add_argument("--seed", type=int, default=FitOptions.seed)
    arguments = parser.parse_args()
    dataset = Dataset.load(arguments.dataset) if arguments.dataset else load_sample()
    log = click_log(dataset, positive_from=arguments.positive_from)
    sizes = ", ".join(f"{len(log.rows(part)):,} {part}" for part in ("train", "valid", "test"))
    print(f"{dataset.name}: {len(log.users):,} users, {len(dataset.items):,} items; {sizes}")
    print(f"{log.label.mean():.1%} of the ratings are clicks")
    print("model    parameters      AUC  95% interval     log loss epochs  seconds")
    for name in arguments.models:
        print(row(name, log, FitOptions(epochs=arguments.epochs, seed=arguments.seed)), flush=True)


if __name__ == "__main__":
    main()
