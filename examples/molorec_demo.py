"""MoLoRec on the bundled sample: train a general and a specific adapter, mix them, fuse, evaluate, recommend.

Run it with `lorarec demo`; it works offline and takes minutes on two cores.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lorarec import (
    Adapter,
    Backbone,
    Dataset,
    Evaluation,
    FusionConfig,
    MixedAdapter,
    Ranker,
    Split,
    TrainingConfig,
    adapter_scorers,
    evaluate,
    fuse,
    leave_one_out,
    load_sample,
    mix,
    recommend,
    train,
)
from lorarec.data import GENERAL_DOMAINS, SPECIFIC_DOMAIN
from lorarec.evaluation import evaluation_table, write_report
from lorarec.io import FolderKind, new_folder
from lorarec.ranking import recommendation_table
from lorarec.recommenders import Scorer

SETTINGS = ("warm", "new-item")
ADAPTERS, FUSION = "adapters", "fusion"
#: Recommenders that are fused with the specific adapter.
FUSED = ("sasrec", "item-knn", "tf-idf", "popularity")
#: There are few cases, so batches are small and the learning rate is high.
TRAINING = TrainingConfig(
    epochs=1, batch_size=8, learning_rate=1e-3, lora_dropout=0, eval_users=0, negatives=11, max_title_tokens=16
)


@dataclass(frozen=True)
class DemoSize:
    """Amount of work of the demo.

    Attributes:
        cases: Number of training cases of each adapter.
        users: Number of test users of each setting.
        prompts: Number of unlabelled prompts of the entropy mixture, and of validation users of the grid.
        fused: Maximum number of validation users on which the fusion is fitted.
    """

    cases: int = 1472
    users: int = 300
    prompts: int = 100
    fused: int = 300


FULL, QUICK = DemoSize(), DemoSize(cases=128, users=40, prompts=16, fused=40)


def run_demo(out: Path, size: DemoSize = FULL, seed: int = 42, overwrite: bool = False) -> Evaluation:
    """Train a general and a specific adapter on the bundled sample, mix and fuse them, and evaluate all.

    `out` gets the specific domain in `dataset`, adapters and mixtures in `adapters`, the fusion in `fusion`,
    `metrics.json`, `report.md` and a picture.

    Raises:
        LorarecError: `out` exists or cannot be written to.
    """
    with new_folder(out, overwrite, FolderKind.DEMO) as folder:
        evaluation = _run(folder, size, seed)
    console = Console()
    console.print(f"Report: {out / 'report.md'}")
    hint = f"To try the adapters in a browser: lorarec serve {out / 'dataset'} --adapters {out / ADAPTERS}"
    console.print(hint, soft_wrap=True)
    return evaluation


def _run(folder: Path, size: DemoSize, seed: int) -> Evaluation:
    console = Console()
    console.rule("1. Data: MovieLens, divided by genre into domains without common films")
    specific = load_sample(SPECIFIC_DOMAIN).save(folder / "dataset")
    adapters = folder / ADAPTERS
    split = leave_one_out(specific, seed=seed)
    split.save(folder / "dataset" / "split")
    general = [_with_split(domain, seed) for domain in GENERAL_DOMAINS]
    for dataset in (specific, *(dataset for dataset, _ in general)):
        counts = dataset.info["counts"]
        console.print("{}: {users:,} users, {items:,} items, {interactions:,} ratings".format(dataset.name, **counts))
    backbone = Backbone.from_pretrained()
    config = replace(TRAINING, samples=size.cases, seed=seed)
    console.rule("2. General adapter: " + ", ".join(GENERAL_DOMAINS))
    pair = [train(backbone, general, adapters / "general", config, progress=True)]
    console.rule(f"3. Specific adapter: {SPECIFIC_DOMAIN}")
    pair.append(train(backbone, [(specific, split)], adapters / "specific", config, progress=True))
    console.rule("4. Mixtures: grid on validation, entropy on unlabelled prompts")
    drawn: dict[str, Any] = {"dataset": specific, "split": split, "seed": seed}
    grid = mix(backbone, pair, adapters / "grid", method="grid", cases=size.prompts, **drawn)
    _print_weights(console, "grid", grid)
    console.rule("5. Fusion of the specific adapter with SASRec, co-occurrence, titles and popularity")
    fusion = fuse(
        specific,
        {"specific": pair[1]},
        FUSED,
        folder / FUSION,
        backbone=backbone,
        split=split,
        config=FusionConfig(cases=size.fused, pool=30),
        seed=seed,
        progress=True,
    )
    parts = []
    for setting in SETTINGS:
        mixed = mix(backbone, pair, adapters / f"entropy-{setting}", setting=setting, prompts=size.prompts, **drawn)
        _print_weights(console, f"entropy, {setting}", mixed)
        compared: dict[str, Adapter] = {"general": pair[0], "specific": pair[1]}
        compared |= {"mixture (grid)": grid, "mixture (entropy)": mixed}
        scorers: dict[str, Scorer] = {**adapter_scorers(backbone, specific, split, compared), "fusion": fusion}
        parts.append(
            evaluate(specific, scorers, split=split, settings=[setting], limit=size.users, seed=seed, progress=True)
        )
    evaluation = replace(parts[0], settings={name: result for part in parts for name, result in part.settings.items()})
    write_report(evaluation, folder)
    console.rule("6. Results")
    for setting in SETTINGS:
        console.print(evaluation_table(evaluation, setting))
    user = split.test["warm"]["user_id"][0]
    with Ranker(backbone, grid) as ranker:
        console.print(recommendation_table(recommend(ranker, specific, user), f"Ten films for user {user}"))
    return evaluation


def _with_split(domain: str, seed: int) -> tuple[Dataset, Split]:
    dataset = load_sample(domain)
    return dataset, leave_one_out(dataset, new_items=0, seed=seed)


def _print_weights(console: Console, name: str, mixed: MixedAdapter) -> None:
    console.print("{}: weight {:.2f} on general, {:.2f} on specific".format(name, *mixed.weights))
