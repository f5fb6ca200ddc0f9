"""RecLoRA on the bundled sample: a click-through model on all ratings, and personal adapters on a few percent of them.

Run it with `lorarec demo personal`; it works offline and takes minutes on two cores.
"""

from dataclasses import replace
from pathlib import Path

import polars as pl
from rich.console import Console

from lorarec import Backbone, PersonalizationConfig, personalize
from lorarec.data import USER, load_whole_sample
from lorarec.evaluation import ClickEvaluation, click_table
from lorarec.io import FolderKind, refuse_existing
from lorarec.personal import Personalized, describe_test_events, export_user, report_clicks

#: Few samples and epochs, so that the demo takes minutes on two cores.
FULL = PersonalizationConfig(
    samples=2048, epochs=2, batch_size=16, learning_rate=2e-3, max_title_tokens=16, test_events=3000
)
QUICK = replace(FULL, samples=64, epochs=1, max_history=2, test_events=None)
#: The quick demo uses one user out of this number of users.
QUICK_ONE_IN = 20
#: Number of users whose adapters are exported.
EXPORTED = 2


def run_personal_demo(out: Path, quick: bool = False, seed: int = 42, overwrite: bool = False) -> ClickEvaluation:
    """Compare a click-through model, one adapter for all users and personal adapters on the bundled sample.

    `out` gets the files of `personalize`, `metrics.json`, `report.md` and the adapters of two users. An interrupted run
    is resumed, or starts again with `overwrite`.

    Raises:
        LorarecError: `out` exists or cannot be written to, or the interrupted run had another seed or size.
    """
    console = Console()
    refuse_existing(out, overwrite, FolderKind.PERSONALIZATION)
    data, config = load_whole_sample(), replace(FULL, seed=seed)
    if quick:
        users = data.interactions[USER].unique(maintain_order=True).gather_every(QUICK_ONE_IN)
        rows = data.interactions.filter(pl.col(USER).is_in(users.implode()))
        data = data.subset(rows, filter_note=f"one user in {QUICK_ONE_IN}")
        config = replace(QUICK, seed=seed)
    console.rule("1. Data: MovieLens, ratings of four stars or more as clicks, divided by time")
    counts = data.info["counts"]
    console.print("{}: {users:,} users, {items:,} items, {interactions:,} ratings".format(data.name, **counts))
    console.rule(f"2. DIN on all training ratings, adapters on {config.samples:,} of them")
    backbone = Backbone.from_pretrained()
    evaluations = []

    def report(made: Personalized) -> None:
        evaluations.append(report_clicks(made))
        for user in _exported(made):
            export_user(made.folder, user, made.folder / "users" / user, backbone)

    result = personalize(
        backbone,
        data,
        out,
        config,
        shared=["similar"],
        resume=not overwrite,
        overwrite=overwrite,
        progress=True,
        report=report,
    )
    console.rule("3. Results on later ratings")
    console.print(click_table(evaluations[0], data.name))
    console.print(describe_test_events(result.record))
    for user in _exported(result):
        console.print(f"Adapter of user {user}: {out / 'users' / user}")
    console.print(f"Report: {out / 'report.md'}")
    return evaluations[0]


def _exported(result: Personalized) -> list[str]:
    return result.predictions[USER].unique(maintain_order=True)[:EXPORTED].to_list()
