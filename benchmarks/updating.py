"""Compare models that are stale, updated and retrained, on data cut by time.

The first 80% of the interactions are a dataset, the next 10% are appended to it as `lorarec update` does it, and the
last 10% are the test: one case for each of some users, drawn among those whose user has a history, with 29 uniform
negatives. Stale models know the first 80%, updated ones go on from them, retrained ones learn from both parts anew.
Updated and retrained models learn from the training part of one split (the first 8 of 10 parts of the new
interactions), so both know equally much. Everything is chosen on its validation part. Costs are seconds of one CPU
thread. Finished rows are kept in OUT/rows.json, so that the command can be run again after an interruption.

    lorarec data import table interactions-timestamps.parquet --items items.parquet --bad-times drop --out data/beauty
    OMP_NUM_THREADS=1 python benchmarks/updating.py data/beauty --out out/updating-beauty
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from lorarec import AdapterUpdateConfig, Backbone, Dataset, Split, TrainingConfig, train, update_adapter
from lorarec.data import ITEM, TARGET, TIME, USER, global_time, split_new_interactions
from lorarec.io import read_json, write_json
from lorarec.metrics import ndcg, target_ranks
from lorarec.prompts import true_places
from lorarec.ranking import adapter_scorers
from lorarec.recommenders import SASRec, SASRecConfig, Scorer, TrainingData

#: Options of the adapter; those of the tables in docs/results.
TRAINING: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "lora_dropout": 0.0,
    "negatives": 11,
    "max_title_tokens": 16,
    "eval_users": 0,
}
SASREC = SASRecConfig(hidden_size=32, num_layers=1, epochs=10)
UPDATE_EPOCHS = (1, 3, 4, 8)


class Parts:
    """The dataset at three moments, with the splits that are learned from and the test cases.

    Args:
        whole: All interactions.
        users: Number of users with a test case.
    """

    def __init__(self, whole: Dataset, users: int) -> None:
        rows, times = whole.interactions, whole.interactions[TIME].sort()
        ends = [int(times[int(share * len(times))]) for share in (0.8, 0.9)]
        parts = [rows.filter(pl.col(TIME).is_between(*each, closed="left")) for each in pairwise([0, *ends, 2**62])]
        self.old = whole.subset(parts[0], filter_note="the first 80% by time")
        self.new = self.old.append(parts[1], whole.items)
        last = self.new.append(parts[2], whole.items)
        self.old_split = global_time(self.old, ratios=(98, 1, 1))
        self.new_split = split_new_interactions(self.new)
        self.sizes = {"first 80%": parts[0].height, "next 10%": parts[1].height, "last 10%": parts[2].height}
        # The same test cases with the counts of either moment: the training part ends where that of the models ended.
        self.stale = global_time(last, cuts=(self.old_split.info["counts"]["cut_times"][0], ends[1]))
        self.fresh = global_time(last, cuts=(self.new_split.info["counts"]["cut_times"][0], ends[1]))
        self.last = last
        self.test = _one_case_per_user(self.fresh, users)
        stale = _one_case_per_user(self.stale, users)
        assert self.test.select(USER, TARGET, "candidates").equals(stale.select(USER, TARGET, "candidates"))
        known = self.old.interactions[ITEM].unique()
        self.is_unknown = ~self.test[TARGET].is_in(known.implode()).to_numpy()


def _one_case_per_user(split: Split, users: int) -> pl.DataFrame:
    """Draw one test case of either setting for each of some users."""
    cases = pl.concat(split.test.values()).sample(fraction=1, shuffle=True, seed=0)
    return cases.unique(USER, keep="first", maintain_order=True).sort(USER).sample(users, shuffle=True, seed=1)


def figures(scorer: Scorer, cases: pl.DataFrame) -> np.ndarray:
    """Return NDCG@10 of every case among its stored candidates."""
    return ndcg(target_ranks(scorer.score(cases), np.array(true_places(cases))), 10)


def adapter_rows(parts: Parts, options: argparse.Namespace, seed: int, finish: Callable[..., None], done: Any) -> None:
    """Measure the adapter with one seed: stale, with fresh counts alone, updated and retrained."""
    backbone = Backbone.from_pretrained("embedded")
    config = TrainingConfig(**TRAINING, samples=options.samples, seed=seed)
    old, new = (parts.old, parts.old_split), (parts.new, parts.new_split)

    def trained(name: str, make: Callable[[Path], object]) -> tuple[Path, float]:
        folder = options.out / f"{name}-{seed}"
        if not (folder / "seconds.json").is_file():
            begin = time.process_time()
            make(folder / "adapter")
            write_json(folder / "seconds.json", time.process_time() - begin)
        return folder / "adapter", float(read_json(folder / "seconds.json"))

    def updated(weight: float) -> tuple[Path, float]:
        update = AdapterUpdateConfig(proximal=weight, samples=options.samples // 5)
        return trained(
            f"updated-{weight:g}",
            lambda folder: update_adapter(backbone, stale, new, old, folder, update),
        )

    def scored(adapter: Path, dataset: Dataset, split: Split, cases: pl.DataFrame) -> np.ndarray:
        return figures(adapter_scorers(backbone, dataset, split, {"row": adapter})["row"], cases)

    stale, seconds = trained("stale", lambda folder: train(backbone, [old], folder, config))
    if not done("adapter", "stale", seed):
        finish("adapter", "stale", seed, seconds, scored(stale, parts.last, parts.stale, parts.test))
    if not done("adapter", "stale, counts updated", seed):
        finish("adapter", "stale, counts updated", seed, 0.0, scored(stale, parts.last, parts.fresh, parts.test))
    valid = parts.new_split.valid.sample(min(200, parts.new_split.valid.height), seed=0)
    for weight in options.proximal:
        adapter, seconds = updated(weight)
        name = f"updated, proximal {weight:g}"
        if not done("adapter", name, seed):
            on_valid = scored(adapter, *new, valid).mean()
            finish("adapter", name, seed, seconds, scored(adapter, parts.last, parts.fresh, parts.test), on_valid)
    retrained, seconds = trained("retrained", lambda folder: train(backbone, [new], folder, config))
    if not done("adapter", "retrained", seed):
        finish("adapter", "retrained", seed, seconds, scored(retrained, parts.last, parts.fresh, parts.test))


def sasrec_rows(parts: Parts, seed: int, finish: Callable[..., None], done: Any) -> None:
    """Measure SASRec with one seed: stale, updated and retrained."""
    if done("SASRec", "retrained", seed):
        return
    before, after = (
        TrainingData(dataset, split, seed=seed)
        for dataset, split in ((parts.old, parts.old_split), (parts.new, parts.new_split))
    )

    def timed(fit: Callable[[], SASRec]) -> tuple[SASRec, float]:
        begin = time.process_time()
        return fit(), time.process_time() - begin

    stale, seconds = timed(lambda: SASRec(SASREC).fit(before))
    finish("SASRec", "stale", seed, seconds, figures(stale, parts.test))
    for epochs in UPDATE_EPOCHS:
        updated, seconds = timed(lambda epochs=epochs: stale.update(after, before, epochs))  # type: ignore[misc]
        on_valid = after.validation_ndcg(updated)
        finish("SASRec", f"updated, {epochs} epochs", seed, seconds, figures(updated, parts.test), on_valid)
    retrained, seconds = timed(lambda: SASRec(SASREC).fit(after))
    finish("SASRec", "retrained", seed, seconds, figures(retrained, parts.test), after.validation_ndcg(retrained))


def table(rows: Sequence[Mapping[str, Any]], unknown: np.ndarray) -> str:
    """Return the rows as Markdown: means over the seeds, and the difference from retraining with its interval."""
    lines = [
        "| Model | NDCG@10 | by seed | items of the stale model | items new to it | less retrained | CPU s | share |",
        "|---|---|---|---|---|---|---|---|",
    ]
    generator = np.random.default_rng(0)
    names = list(dict.fromkeys((each["model"], each["row"]) for each in rows))
    for model, row in names:
        mine, best = (
            [each for each in rows if (each["model"], each["row"]) == (model, name)] for name in (row, "retrained")
        )
        seeds = {each["seed"] for each in mine}
        best = [each for each in best if each["seed"] in seeds]
        per_case, target = (np.mean([each["ndcg@10"] for each in of], axis=0) for of in (mine, best))
        draws = generator.integers(0, len(target), (2000, len(target)))
        low, high = np.quantile((per_case - target)[draws].mean(1), (0.025, 0.975))
        seconds, whole = (np.mean([each["seconds"] for each in of]) for of in (mine, best))
        values = (
            f"{per_case.mean():.4f}",
            " ".join(f"{np.mean(each['ndcg@10']):.4f}" for each in mine),
            f"{per_case[~unknown].mean():.4f}",
            f"{per_case[unknown].mean():.4f}" if unknown.any() else "",
            "" if row == "retrained" else f"{(per_case - target).mean():+.4f} [{low:+.4f}, {high:+.4f}]",
            f"{seconds:.0f}",
            f"{seconds / whole:.2f}",
        )
        lines.append(f"| {model}, {row} | {' | '.join(values)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is not finished, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="dataset folder with real timestamps")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=512, help="training cases of an adapter; an update has a fifth")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43])
    parser.add_argument("--proximal", type=float, nargs="+", default=[0.0, 1.0, 10.0], help="weights of the term")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = Parts(Dataset.load(options.dataset), options.users)
    path = options.out / "rows.json"
    rows: list[dict[str, Any]] = read_json(path) if path.is_file() else []

    def done(model: str, row: str, seed: int) -> bool:
        return any((each["model"], each["row"], each["seed"]) == (model, row, seed) for each in rows)

    def finish(
        model: str, row: str, seed: int, seconds: float, per_case: np.ndarray, valid: float | None = None
    ) -> None:
        entry = {"model": model, "row": row, "seed": seed, "seconds": seconds, "valid": valid}
        if done(model, row, seed):
            return
        rows.append({**entry, "ndcg@10": per_case.tolist()})
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(path, rows)
        print(json.dumps({**entry, "ndcg@10": float(per_case.mean())}), flush=True)

    print(parts.sizes, f"{parts.is_unknown.sum()} of {len(parts.test)} targets are new to the stale models", flush=True)
    for seed in options.seeds:
        sasrec_rows(parts, seed, finish, done)
        adapter_rows(parts, options, seed, finish, done)
    print(table(rows, parts.is_unknown))


if __name__ == "__main__":
    main()
