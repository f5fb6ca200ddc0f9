"""The demo: MoLoRec from the bundled log to a mixed adapter that ranks, offline and in minutes."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lorarec.artefacts import new_folder
from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, leave_one_out
from lorarec.data.sample import GENERAL_DOMAINS, SPECIFIC_DOMAIN, load_sample
from lorarec.evaluation import Evaluation, evaluate, evaluation_table
from lorarec.mixing import CasePrompts, mix
from lorarec.ranking import Ranker, recommend
from lorarec.ranking.tables import recommendation_table
from lorarec.training import train

SETTINGS = ("warm", "new-item")


@dataclass(frozen=True)
class DemoSize:
    """How much work the demo does.

    Attributes:
        cases: training cases of each adapter.
        users: test users of each setting.
        prompts: unlabelled prompts of the entropy mixture, and validation users of the grid.
    """

    cases: int = 1536
    users: int = 300
    prompts: int = 100


FULL, QUICK = DemoSize(), DemoSize(cases=128, users=40, prompts=16)


def run_demo(out: Path, size: DemoSize = FULL, seed: int = 42, overwrite: bool = False) -> Evaluation:
    """Train a general and a specific adapter on the bundled sample, mix them and compare everything.

    `out` gets the adapters, the mixtures, `metrics.json` and `report.md`.

    Raises:
        LorarecError: `out` exists or cannot be written to.
    """
    console = Console()
    with new_folder(out, overwrite) as folder:
        console.rule("1. Data: MovieLens, cut by genre")
        specific = load_sample(SPECIFIC_DOMAIN)
        split = leave_one_out(specific, seed=seed)
        general = [_with_split(domain, seed) for domain in GENERAL_DOMAINS]
        for dataset in (specific, *(dataset for dataset, _ in general)):
            counts = dataset.info["counts"]
            console.print(f"{dataset.name}: {counts['users']} users, {counts['items']} items, "
                          f"{counts['interactions']:,} interactions")
        backbone = Backbone.load()
        adapters = folder / "adapters"
        adapters.mkdir()
        options = {"samples": size.cases, "epochs": 1, "batch_size": 32, "lr": 2e-3, "eval_users": 0, "seed": seed}
        console.rule("2. General adapter: " + ", ".join(GENERAL_DOMAINS))
        train(backbone, general, adapters / "general", progress=True, **options)
        console.rule(f"3. Specific adapter: {SPECIFIC_DOMAIN}")
        train(backbone, [(specific, split)], adapters / "specific", progress=True, **options)
        console.rule("4. Mixtures: grid on validation, entropy on unlabelled prompts")
        mixtures = _mixtures(backbone, specific, split, adapters, size, seed)
        console.rule("5. Evaluation")
        evaluation = _evaluate(backbone, specific, split, adapters, folder, size, seed)
        for setting in SETTINGS:
            console.print(evaluation_table(evaluation, setting))
            console.print(f"entropy, {setting}: weight {mixtures[setting][0]:.2f} on general, "
                          f"{mixtures[setting][1]:.2f} on specific")
        user = split.test["warm"]["user_id"][0]
        with Ranker(backbone, adapters / "grid") as ranker:
            console.print(recommendation_table(recommend(ranker, specific, user), f"Ten films for user {user}"))
    console.print(f"Report: {out / 'report.md'}")
    return evaluation


def _with_split(domain: str, seed: int) -> tuple[Dataset, Split]:
    dataset = load_sample(domain)
    return dataset, leave_one_out(dataset, new_items=0, seed=seed)


def _mixtures(
    backbone: Backbone, dataset: Dataset, split: Split, adapters: Path, size: DemoSize, seed: int
) -> dict[str, list[float]]:
    """Mix by grid once and by entropy for each setting; returns the entropy weights."""
    pair = [adapters / "general", adapters / "specific"]
    cases = CasePrompts(backbone, pair)
    validation = cases.validation(dataset, split, size.prompts, seed)
    mix(backbone, pair, out=adapters / "grid", method="grid", validation=validation, builder=cases.builder)
    weights = {}
    for setting in SETTINGS:
        prompts = cases.unlabelled(dataset, split, setting, size.prompts, seed)
        result = mix(backbone, pair, out=adapters / f"entropy-{setting}", prompts=prompts, builder=cases.builder)
        weights[setting] = list(result.weights)
    return weights


def _evaluate(
    backbone: Backbone, dataset: Dataset, split: Split, adapters: Path, out: Path, size: DemoSize, seed: int
) -> Evaluation:
    ...
