"""Where entropy puts the weight and how many unlabelled prompts it takes (MoLoRec, Figures 4 and 5).

For a general and a specific adapter of one dataset: the weights found on 100 unlabelled prompts of each setting; NDCG
of test users after mixing on 10 to 200 prompts of other test users; NDCG of every scope and combination.

    python benchmarks/entropy_analysis.py data/beauty adapters/general adapters/beauty --out docs/entropy
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lorarec.adapters import read_adapter
from lorarec.artefacts import new_folder, write_json
from lorarec.backbone import Backbone
from lorarec.data import Dataset, Evidence, Split, load_split
from lorarec.evaluation import RankerRow
from lorarec.metrics import ndcg, target_ranks
from lorarec.mixing import CasePrompts, effect_of_prompts, mix, where_weight_goes
from lorarec.prompts import true_places

SEED, PROMPTS, MOST = 42, 100, 200
VARIANTS = [(scope, combine) for scope in ("model", "layer") for combine in ("factors", "deltas")]


def apart(split: Split, setting: str, users: int) -> Split:
    """Half of the test cases of a setting to draw prompts from, `users` others as the labelled ones to measure on."""
    cases = split.test[setting].sample(fraction=1, shuffle=True, seed=SEED)
    half = len(cases) // 2
    return replace(split, test={setting: cases[:half]}, valid=cases[half : half + users])


def measured(backbone: Backbone, dataset: Dataset, split: Split, adapter: Path) -> dict[str, float]:
    """NDCG of an adapter on the labelled cases."""
    evidence = Evidence(split.train, dataset.titles)
    row = RankerRow(backbone, dataset.titles, read_adapter(adapter, backbone), evidence)
    ranks = target_ranks(row(split.valid), np.array(true_places(split.valid)))
    return {f"ndcg@{k}": float(ndcg(ranks, k).mean()) for k in (1, 3)}


def variants(
    backbone: Backbone, pair: list[Path], cases: CasePrompts, dataset: Dataset, split: Split, setting: str
) -> list[dict[str, Any]]:
    """NDCG of both adapters and of every scope and combination, mixed on the same prompts."""
    prompts = cases.unlabelled(dataset, split, setting, PROMPTS, SEED)
    rows = [{"row": folder.name, **measured(backbone, dataset, split, folder)} for folder in pair]
    for scope, combine in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            options: dict[str, Any] = {"scope": scope, "combine": combine, "out": Path(folder) / "mixed"}
            mixed = mix(backbone, pair, prompts=prompts, builder=cases.builder, **options)
            found = mixed.weights.values() if isinstance(mixed.weights, dict) else [mixed.weights]
            mean = np.mean(list(found), axis=0).round(4).tolist()
            figures = measured(backbone, dataset, split, mixed.folder)
            rows.append({"row": f"{scope}, {combine}", "mean weights": mean, **figures})
        print(setting, rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("general", type=Path)
    parser.add_argument("specific", type=Path)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--users", type=int, default=300, help="test users to measure NDCG on")
    parser.add_argument("--repeats", type=int, default=3, help="draws of prompts for each number of them")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    backbone = Backbone.load(arguments.backbone)
    dataset = Dataset.load(arguments.dataset)
    split = load_split(dataset)
    pair = [arguments.general, arguments.specific]
    cases = CasePrompts(backbone, pair)
    with new_folder(arguments.out) as folder:
        prompts = {name: cases.unlabelled(dataset, split, name, PROMPTS, SEED) for name in split.test}
        found = where_weight_goes(backbone, pair, prompts, cases.builder, folder / "settings")
        print({name: each["weights"] for name, each in found.items()}, flush=True)
        rows = {}
        for name in split.test:
            halves = apart(split, name, arguments.users)
            rows[name] = variants(backbone, pair, cases, dataset, halves, name)
            drawn = cases.unlabelled(dataset, halves, name, MOST, SEED)
            labelled = cases.validation(dataset, halves, arguments.users, SEED)
            effect_of_prompts(
                backbone, pair, drawn, labelled, cases.builder, folder / name, repeats=arguments.repeats, seed=SEED
            )
        write_json(folder / "variants.json", rows)


if __name__ == "__main__":
    main()
