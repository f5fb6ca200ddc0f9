"""MoLoRec on the bundled sample: train a general and a specific adapter, mix them, fuse, evaluate, recommend, explain.

Run it with `lorarec demo`; it works offline and takes minutes on two cores. With another backbone, `lorarec demo
--backbone model.gguf --reduced` does a part of it, in a smaller size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lorarec import (
    Adapter,
    Backbone,
    Dataset,
    Evaluation,
    Explanation,
    FusionConfig,
    MixedAdapter,
    Ranker,
    Recommendation,
    Split,
    TrainingConfig,
    adapter_scorers,
    evaluate,
    explain,
    fuse,
    leave_one_out,
    load_sample,
    mix,
    recommend,
    train,
)
from lorarec.data import GENERAL_DOMAINS, SPECIFIC_DOMAIN
from lorarec.evaluation import escape_markdown, evaluation_table, write_report
from lorarec.io import FolderKind, new_folder
from lorarec.ranking import explanation_table, recommendation_table
from lorarec.recommenders import Scorer

SETTINGS = ("warm", "new-item")
ADAPTERS, FUSION = "adapters", "fusion"
#: Recommenders that are fused with the specific adapter.
FUSED = ("sasrec", "item-knn", "tf-idf", "popularity")
#: There are few cases, so batches are small and learning rates are high.
TRAINING = TrainingConfig(epochs=1, batch_size=8, lora_dropout=0, eval_users=0, negatives=11, max_title_tokens=16)


@dataclass(frozen=True)
class DemoSize:
    """Amount of work of the demo.

    Attributes:
        cases: Number of training cases of each adapter.
        users: Number of test users of each setting.
        prompts: Number of unlabelled prompts of the entropy mixture, and of validation users of the grid.
        fused: Maximum number of validation users on which the fusion is fitted.
        pool: Number of candidates from which the ten films at the end are recommended.
        mixtures: Whether there are a general adapter and mixtures of it with the specific one.
        learning_rate: Peak learning rate of each adapter.
    """

    cases: int = 1472
    users: int = 300
    prompts: int = 100
    fused: int = 300
    pool: int = 100
    mixtures: bool = True
    learning_rate: float = 1e-3


FULL, QUICK = DemoSize(), DemoSize(cases=128, users=40, prompts=16, fused=40)
#: For a backbone of 135 million parameters on two cores. Neither the sizes nor the learning rate were tuned.
REDUCED = DemoSize(cases=320, users=60, fused=60, pool=20, mixtures=False, learning_rate=5e-4)


def run_demo(
    out: Path, size: DemoSize = FULL, seed: int = 42, overwrite: bool = False, backbone: str = "embedded"
) -> Evaluation:
    """Train a general and a specific adapter on the bundled sample, mix and fuse them, evaluate all, and recommend.

    `out` gets the specific domain in `dataset`, adapters and mixtures in `adapters`, the fusion in `fusion`,
    `metrics.json`, `report.md` and a picture. The report ends with ten films for a user and an explanation of the
    first, in words if the backbone has a chat template.

    Raises:
        LorarecError: `out` exists or cannot be written to, or the backbone cannot be loaded.
    """
    with new_folder(out, overwrite, FolderKind.DEMO) as folder:
        evaluation = _run(folder, size, seed, backbone)
    console = Console()
    console.print(f"Report: {out / 'report.md'}")
    chosen = "" if backbone == "embedded" else f" --backbone {backbone}"
    hint = f"To try the adapters in a browser: lorarec serve {out / 'dataset'} --adapters {out / ADAPTERS}{chosen}"
    console.print(hint, soft_wrap=True)
    return evaluation


def _run(folder: Path, size: DemoSize, seed: int, backbone_id: str) -> Evaluation:
    console = Console()
    console.rule("Data: MovieLens, divided by genre into domains without common films")
    specific = load_sample(SPECIFIC_DOMAIN).save(folder / "dataset")
    adapters = folder / ADAPTERS
    split = leave_one_out(specific, seed=seed)
    split.save(folder / "dataset" / "split")
    general = [_with_split(domain, seed) for domain in GENERAL_DOMAINS] if size.mixtures else []
    for dataset in (specific, *(dataset for dataset, _ in general)):
        counts = dataset.info["counts"]
        console.print("{}: {users:,} users, {items:,} items, {interactions:,} ratings".format(dataset.name, **counts))
    backbone = Backbone.from_pretrained(backbone_id)
    config = replace(TRAINING, samples=size.cases, seed=seed, learning_rate=size.learning_rate)
    compared: dict[str, Adapter] = {}
    if size.mixtures:
        console.rule("General adapter: " + ", ".join(GENERAL_DOMAINS))
        compared["general"] = train(backbone, general, adapters / "general", config, progress=True)
    console.rule(f"Specific adapter: {SPECIFIC_DOMAIN}")
    compared["specific"] = train(backbone, [(specific, split)], adapters / "specific", config, progress=True)
    pair, recommending = list(compared.values()), compared["specific"]
    drawn: dict[str, Any] = {"dataset": specific, "split": split, "seed": seed}
    if size.mixtures:
        console.rule("Mixtures: grid on validation, entropy on unlabelled prompts")
        recommending = mix(backbone, pair, adapters / "grid", method="grid", cases=size.prompts, **drawn)
        _print_weights(console, "grid", recommending)
        compared["mixture (grid)"] = recommending
    console.rule("Fusion of the specific adapter with SASRec, co-occurrence, titles and popularity")
    fusion = fuse(
        specific,
        {"specific": compared["specific"]},
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
        rows = dict(compared)
        if size.mixtures:
            mixed = mix(backbone, pair, adapters / f"entropy-{setting}", setting=setting, prompts=size.prompts, **drawn)
            _print_weights(console, f"entropy, {setting}", mixed)
            rows["mixture (entropy)"] = mixed
        of_adapters = adapter_scorers(backbone, specific, split, rows, progress=True)
        scorers: dict[str, Scorer] = {**of_adapters, "fusion": fusion}
        parts.append(
            evaluate(specific, scorers, split=split, settings=[setting], limit=size.users, seed=seed, progress=True)
        )
    evaluation = replace(parts[0], settings={name: result for part in parts for name, result in part.settings.items()})
    console.rule("Results")
    for setting in SETTINGS:
        console.print(evaluation_table(evaluation, setting))
    user = split.test["warm"]["user_id"][0]
    with Ranker(backbone, recommending) as ranker:
        films = recommend(ranker, specific, user, pool=size.pool)
        console.print(recommendation_table(films, f"Ten films for user {user}"))
        first = explain(ranker, specific, user, films[0].item_id, size.pool)
    console.print(explanation_table(first, f"Why {first.title}"))
    if first.reason is not None:
        console.print(f"In the words of the backbone: {first.reason}", markup=False)
    write_report(evaluation, folder, _recommended(user, films, first))
    return evaluation


def _recommended(user: str, films: Sequence[Recommendation], first: Explanation) -> list[str]:
    """Return the lines of the report on the films that are recommended to a user, and why the first of them is."""
    influences = sorted(first.influences, key=lambda influence: -abs(influence.score))
    reason = (
        [] if first.reason is None else ["", "In the words of the backbone:", "", f"> {' '.join(first.reason.split())}"]
    )
    return [
        "",
        f"## Recommended to user {user}",
        "",
        *(f"{place}. {escape_markdown(film.title)}" for place, film in enumerate(films, start=1)),
        "",
        f"Why {escape_markdown(first.title)}? What each film of the history adds to its score, the log-odds of yes:",
        "",
        *(f"- {escape_markdown(influence.title)}: {influence.score:+.3f}" for influence in influences),
        *reason,
    ]


def _with_split(domain: str, seed: int) -> tuple[Dataset, Split]:
    dataset = load_sample(domain)
    return dataset, leave_one_out(dataset, new_items=0, seed=seed)


def _print_weights(console: Console, name: str, mixed: MixedAdapter) -> None:
    console.print("{}: weight {:.2f} on general, {:.2f} on specific".format(name, *mixed.weights))
