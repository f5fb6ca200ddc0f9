"""Compare SASRec and BPR-MF with those of RecTools (and implicit) on the same split, batch size and number of epochs.

The libraries train in turn, with one seed a round and the same number of threads. Measured are next items (for BPR
interactions) per second, and NDCG of the target among the stored candidates of the warm test. RecTools' softmax
is over the whole catalogue; lorarec trains once with that and once with 512 drawn items, its default. RecTools reads
the latest items of a history, lorarec reads all of them in pieces. The number of epochs is fixed, and neither uses
validation cases.

    python -m venv rectools && rectools/bin/pip install 'rectools[torch]' polars
    python benchmarks/next_item_rivals.py data/ml-100k --rectools rectools/bin/python --epochs 40 --rounds 3
"""

import argparse
import json
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from lorarec.data import Dataset, load_split
from lorarec.data.columns import CANDIDATES, HISTORY
from lorarec.evaluation import sample_users
from lorarec.metrics import ndcg, target_ranks
from lorarec.prompts import true_places
from lorarec.recommenders import (
    BPRMF,
    BPRMFConfig,
    NextItemModel,
    SASRecConfig,
    TrainingData,
    fit_next_item,
    known_items,
    next_item_scorer,
)

EVERYTHING = 10**9


def write_log(data: TrainingData, cases: pl.DataFrame, path: Path) -> None:
    """Training histories, the histories of the cases and their candidates as item numbers.

    Users of the cases come first in training under the same number, so that BPR knows them. Candidates without training
    interactions are -1.
    """
    order = {user: place for place, user in enumerate(cases["user_id"].to_list())}
    rows = sorted(range(len(data.users)), key=lambda row: order.get(data.users[row], len(order)))
    assert [data.users[row] for row in rows[: len(cases)]] == cases["user_id"].to_list()
    train = [data.histories[row] for row in rows]
    known_histories = known_items(cases[HISTORY], data.train_index)
    candidates = [[data.train_index.get(item, -1) for item in items] for items in cases[CANDIDATES].to_list()]
    arrays: dict[str, Any] = {
        "train": np.concatenate(train),
        "train_ends": np.cumsum([len(history) for history in train]),
        "cases": np.concatenate(known_histories),
        "cases_ends": np.cumsum([len(history) for history in known_histories]),
    }
    np.savez(path, users=np.arange(len(cases)), candidates=np.array(candidates), **arrays)


def metrics_of(scores: list[np.ndarray], cases: pl.DataFrame) -> dict[str, float]:
    ranks = target_ranks(scores, np.array(true_places(cases)))
    return {f"NDCG@{k}": float(ndcg(ranks, k).mean()) for k in (1, 10)}


def rival(python: str, log: Path, cases: pl.DataFrame, options: dict[str, Any]) -> dict[str, float]:
    (log.with_name("options.json")).write_text(json.dumps(options))
    script = Path(__file__).with_name("rectools_rows.py")
    done = subprocess.run(
        [python, str(script), str(log), str(log.with_name("options.json"))],
        env={"OMP_NUM_THREADS": str(torch.get_num_threads()), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    result = json.loads(done.stdout.strip().splitlines()[-1])
    # The first epoch also warms up.
    seconds = float(np.median(result["epochs"][1:])) if result["epochs"] else result["seconds"] / options["epochs"]
    return {
        "epoch": seconds,
        "learned": result["learned"],
        **metrics_of(list(np.load(log.with_name("scores.npy"))), cases),
    }


def own_sasrec(data: TrainingData, cases: pl.DataFrame, negatives: int, options: dict[str, Any]) -> dict[str, float]:
    config = SASRecConfig(negatives=negatives, patience=EVERYTHING, **options)
    ends: list[float] = [time.perf_counter()]

    def valid(_: NextItemModel) -> float:
        """Note the time and return a number that rises, so that the last epoch is the best."""
        ends.append(time.perf_counter())
        return len(ends)

    model = fit_next_item(data.histories, len(data.train_items), config, data.seed, valid=valid)
    scores = next_item_scorer(data, model).score(cases)
    learned = sum(len(history) - 1 for history in data.histories)
    return {"epoch": float(np.median(np.diff(ends)[1:])), "learned": learned, **metrics_of(scores, cases)}


def own_bpr(data: TrainingData, cases: pl.DataFrame, options: dict[str, Any]) -> dict[str, float]:
    began = time.perf_counter()
    recommender = BPRMF(BPRMFConfig(patience=EVERYTHING, **options)).fit(data)
    learned = sum(map(len, data.histories))
    return {"epoch": (time.perf_counter() - began) / options["epochs"], "learned": learned} | metrics_of(
        recommender.score(cases), cases
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--rectools", required=True, help="Python of an environment with RecTools")
    parser.add_argument("--users", type=int, default=1000, help="number of test users")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--bpr-epochs", type=int, default=100, help="0 for no BPR-MF")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-history", type=int, default=50)
    arguments = parser.parse_args()
    dataset = Dataset.load(arguments.dataset)
    split = load_split(dataset)
    cases = sample_users(split.test["warm"], arguments.users, 0)
    shared = {"hidden_size": 64, "batch_size": 128, "epochs": arguments.epochs, "learning_rate": 1e-3, "dropout": 0.2}
    shared |= {"num_layers": 2, "max_history": arguments.max_history}
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, arguments.rounds + 1):
            data = TrainingData(dataset, split, seed=seed)
            log = Path(folder) / "log.npz"
            write_log(data, cases, log)
            theirs = partial(rival, arguments.rectools, log, cases)
            ways = {
                "SASRec, RecTools, whole catalogue": partial(theirs, shared | {"seed": seed, "system": "sasrec"}),
                "SASRec, lorarec, whole catalogue": partial(own_sasrec, data, cases, EVERYTHING, shared),
                "SASRec, lorarec, 512 drawn items": partial(own_sasrec, data, cases, 512, shared),
            }
            if arguments.bpr_epochs:
                more = {"hidden_size": 64, "epochs": arguments.bpr_epochs}
                usual = {"system": "bpr", "seed": seed, "learning_rate": 0.01, "weight_decay": 0.01}
                ways["BPR-MF, implicit through RecTools"] = partial(theirs, usual | more)
                ways["BPR-MF, lorarec"] = partial(own_bpr, data, cases, more)
            for name, way in ways.items():
                found.setdefault(name, []).append(way())
                print(seed, name, found[name][-1], flush=True)
    print(f"{dataset.name}: {len(cases)} test cases, {len(split.train)} histories")
    for name, rounds in found.items():
        middle = {key: float(np.median([each[key] for each in rounds])) for key in rounds[0]}
        spread = [each["NDCG@10"] for each in rounds]
        print(
            f"{name:36} {middle['learned'] / middle['epoch']:8.0f} next items/s, NDCG@1 {middle['NDCG@1']:.3f}, "
            f"NDCG@10 {middle['NDCG@10']:.3f} ({min(spread):.3f} to {max(spread):.3f})"
        )


if __name__ == "__main__":
    main()
