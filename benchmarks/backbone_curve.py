"""The embedded backbone over its training: ranking on domains it never saw, before and after a general adapter.

For each snapshot of a build, NDCG@1 on validation users of the target datasets: the backbone alone, and with a general
adapter trained on other domains; popularity and TF-IDF beside them. Test users are not touched. Writes JSON and PNG.

    python benchmarks/backbone_curve.py WORK --general data/games data/office --targets data/beauty data/toys --out docs
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from lorarec.backbone import Backbone
from lorarec.data import Cooccurrence, Dataset, load_split
from lorarec.io import save_figure
from lorarec.metrics import ndcg, target_ranks
from lorarec.prompts import PromptConfig, true_places
from lorarec.ranking import AdapterScorer
from lorarec.recommenders import TrainingData, fit_baselines
from lorarec.training import TrainingConfig, train

STYLES = (":", "-.", (0, (5, 5)), "--")  # of the baselines
#: As recipes/train/embedded.yaml, for a general adapter.
TRAINING = TrainingConfig(
    epochs=1,
    batch_size=16,
    learning_rate=1e-3,
    lora_dropout=0,
    eval_users=0,
    balance="equal",
    negatives=11,
    max_title_tokens=16,
)


def ndcg_at_1(scores: list[np.ndarray], cases: pl.DataFrame) -> float:
    return float(ndcg(target_ranks(scores, np.array(true_places(cases))), 1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="OUT.work of `python -m tools.embedded_backbone build`")
    parser.add_argument("--general", type=Path, nargs="+", required=True)
    parser.add_argument("--targets", type=Path, nargs="+", required=True)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--cases", type=int, default=1024, help="training cases of each general adapter")
    parser.add_argument("--steps", type=int, nargs="*", help="snapshots to measure; all without it")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    general = [Dataset.load(folder) for folder in arguments.general]
    targets = [Dataset.load(folder) for folder in arguments.targets]
    sampled = {d.name: load_split(d).valid.sample(arguments.users, seed=0, shuffle=True) for d in targets}
    evidence = {dataset.name: Cooccurrence(load_split(dataset).train, dataset.titles) for dataset in targets}
    rows: list[dict[str, object]] = []
    for dataset in targets:
        cases = sampled[dataset.name]
        for name, baseline in fit_baselines(TrainingData(dataset, load_split(dataset), seed=0)).items():
            value = ndcg_at_1(baseline.score(cases), cases)
            rows.append({"row": name, "target": dataset.name, "step": None, "ndcg@1": value})
    for snapshot in sorted((arguments.work / "snapshots").iterdir()):
        if arguments.steps and int(snapshot.name) not in arguments.steps:
            continue
        backbone = Backbone.from_pretrained(snapshot)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "general"
            trained = train(backbone, general, out, replace(TRAINING, samples=arguments.cases))
            for name, adapter in (("zero-shot", None), ("general", trained)):
                for dataset in targets:
                    cases = sampled[dataset.name]
                    counts = None if adapter is None else evidence[dataset.name]
                    prompt = None if adapter else PromptConfig(max_title_tokens=TRAINING.max_title_tokens)
                    scorer = AdapterScorer(backbone, dataset.titles, adapter, counts, prompt=prompt)
                    value = ndcg_at_1(scorer.score(cases), cases)
                    rows.append({"row": name, "target": dataset.name, "step": int(snapshot.name), "ndcg@1": value})
                    print(rows[-1], flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "backbone_curve.json").write_text(json.dumps(rows, indent=1))
    draw(rows, [dataset.name for dataset in targets], arguments.out / "backbone_curve.png")


def draw(rows: list[dict[str, object]], targets: list[str], path: Path) -> None:
    figure = Figure(figsize=(5 * len(targets), 3.5), layout="tight")
    axes = figure.subplots(1, len(targets), sharey=True, squeeze=False)
    for axis, target in zip(axes[0], targets, strict=True):
        mine = [row for row in rows if row["target"] == target]
        for name in ("zero-shot", "general"):
            points = [(row["step"], row["ndcg@1"]) for row in mine if row["row"] == name]
            axis.plot(*zip(*points, strict=True), marker="o", label=name)
        for row, style in zip([row for row in mine if row["step"] is None], STYLES, strict=True):
            axis.axhline(row["ndcg@1"], color="grey", linestyle=style, label=row["row"])
        axis.set(title=f"{target} (validation)", xlabel="step of the build")
    axes[0, 0].set_ylabel("NDCG@1")
    axes[0, 0].legend()
    save_figure(figure, path)


if __name__ == "__main__":
    main()
