"""What a fusion gains when its recommenders learn from the validation targets as well: NDCG of the cases of a recipe.

The fusion of a row of a recipe is fitted once for each seed, and ranks the test cases before and after its recommenders
have learned from the validation targets. Differences are paired over the users, each of which counts with the mean over
the seeds; p is of the paired t-test. With --earlier, no test case is read: the validation cases take the place of the
test cases, and cases of the last item of each training history that of the validation cases.

    python benchmarks/fusion_validation.py recipes/tables/fusion-toys.yaml fusion-without-lm --out out/toys
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file, save_file

from lorarec.data import CANDIDATES, HISTORY, TARGET, USER, WARM, Dataset, Split, content_hash
from lorarec.data.candidates import draw_candidates
from lorarec.evaluation import sample_users
from lorarec.experiments import read_experiment
from lorarec.experiments.experiment_data import ExperimentData
from lorarec.experiments.fusion_row import FusionRow
from lorarec.experiments.row_key import row_key
from lorarec.io import RunDir, new_file
from lorarec.metrics import bootstrap_interval, ndcg, paired_t_test, target_ranks
from lorarec.prompts import true_places
from lorarec.ranking import Fusion

CUTOFFS = (1, 3, 10)
ROWS = ("training part", "validation targets as well")


def main() -> None:
    """Print a table of both fusions for each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("row", help="row of the recipe, a fusion")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is trained, and of finished seeds")
    parser.add_argument("--earlier", action="store_true", help="read no test case")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--leave-out", nargs="*", default=[], help="recommenders of the row that are left out")
    arguments = parser.parse_args()
    recipe = read_experiment(arguments.recipe)
    data = ExperimentData.load(recipe)
    if arguments.earlier:
        split = earlier_split(data.dataset, data.split)
        data = replace(data, split=split, cases={WARM: sample_users(split.test[WARM], recipe.users, 0)})
    options = recipe.rows[arguments.row].options
    systems = {name: each for name, each in options["systems"].items() if name not in arguments.leave_out}
    options = {**options, "systems": systems, "hold_out_validation": True}
    RunDir(arguments.out, data.identity(recipe) | row_key("fusion", options)).open()
    found: dict[str, list[np.ndarray]] = {setting: [] for setting in data.cases}
    for seed in arguments.seeds:
        file = arguments.out / f"seed{seed}.safetensors"
        if not file.is_file():
            training = data.training_data(recipe, None, seed, arguments.out / "artefacts", progress=True)
            values_of_seed = measure(FusionRow.from_options(options).fit(training).fusion, data.cases)
            with new_file(file) as temporary:
                save_file(values_of_seed, temporary)
        stored = load_file(file)
        for setting, values in found.items():
            values.append(stored[setting])
    for setting, values in found.items():
        show(np.mean(values, axis=0), f"{data.dataset.name}, {setting}, seeds {arguments.seeds}")


def measure(fusion: Fusion, cases: dict[str, pl.DataFrame]) -> dict[str, np.ndarray]:
    """Return NDCG (rows, cut-offs, cases) of each setting."""
    group = fusion.group.learn_validation_targets()
    both = (fusion, Fusion(group, fusion.model, fusion.pool_model, fusion.config, fusion.record))
    return {setting: np.stack([ndcg_of(ranked, each) for ranked in both]) for setting, each in cases.items()}


def ndcg_of(fusion: Fusion, cases: pl.DataFrame) -> np.ndarray:
    """Return NDCG (cut-offs, cases) of a fusion."""
    ranks = target_ranks(fusion.score(cases), np.array(true_places(cases)))
    return np.stack([ndcg(ranks, cutoff) for cutoff in CUTOFFS])


def earlier_split(dataset: Dataset, split: Split) -> Split:
    """Return a split whose test cases are the validation cases, and whose validation targets end the training part."""
    length = pl.col(HISTORY).list.len()
    long, short = split.train.filter(length >= 3), split.train.filter(length < 3)
    cut = long.with_columns(pl.col(HISTORY).list.head(length - 1), pl.col(HISTORY).list.last().alias(TARGET))
    items = split.train[HISTORY].explode().unique().sort()
    valid = draw_candidates(cut, dataset.interactions, items, 29, np.random.default_rng(0))
    train = pl.concat([cut.select(USER, HISTORY), short])
    info = {**split.info, "fingerprint": content_hash(train, valid)}
    return Split(train, valid.select(USER, HISTORY, TARGET, CANDIDATES), {WARM: split.valid}, info)


def show(values: np.ndarray, title: str) -> None:
    """Print the table of a setting from NDCG (rows, cut-offs, cases)."""
    table = Table(title=f"{title}: {values.shape[2]:,} cases")
    for column in ("fusion", *(f"ndcg@{cutoff}" for cutoff in CUTOFFS)):
        table.add_column(column)
    for row, of_row in zip(ROWS, values, strict=True):
        table.add_row(row, *(f"{each.mean():.4f}" for each in of_row))
    cells = []
    for before, after in zip(*values, strict=True):
        low, high = bootstrap_interval(after - before)
        cells.append(f"{(after - before).mean():+.4f} [{low:+.3f}, {high:+.3f}] p {paired_t_test(after, before):.2g}")
    table.add_row("difference", *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
