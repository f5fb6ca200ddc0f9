"""The demo of RecLoRA: a conventional recommender on all ratings, and adapters for every user on a few percent."""

from dataclasses import replace
from pathlib import Path

import polars as pl
from rich.console import Console

from lorarec.backbone import Backbone
from lorarec.data import USER, load_whole_sample
from lorarec.evaluation import (
    ClickEvaluation,
    click_table,
)
from lorarec.io import FolderKind, refuse_existing
from lorarec.personal import (
    PersonalizationConfig,
    Personalized,
    describe_test_events,
    export_user,
    personalize,
    report_clicks,
)

#: Few samples and passes, for minutes on two cores.
FULL = PersonalizationConfig(
    samples=2048, epochs=2, batch_size=16, learning_rate=2e-3, max_title_tokens=16, test_events=3000
)
QUICK = replace(FULL, samples=64, epochs=1, max_history=2, test_events=None)
#: Of the users, one in so many is kept for the quick demo.
QUICK_ONE_IN = 20
EXPORTED = 2


def run_personal_demo(out: Path, quick: bool = False, seed: int = 42, overwrite: bool = False) -> ClickEvaluation:
    """Compare a conventional recommender, one adapter for all users and personal adapters on the bundled sample.

    `out` gets what `personalize` writes, `metrics.json`, `report.md` and two users' own adapters. A run that was
    interrupted goes on where it stopped, or starts anew with `overwrite`.

    Raises:
        LorarecError: `out` exists or cannot be written to, or the interrupted run had another seed or size.
    """
    console = Console()
    refuse_existing(out, overwrite, FolderKind.PERSONALIZATION)
    data, config = load_whole_sample(), replace(FULL, seed=seed)
    if quick:
        kept = data.interactions[USER].unique(maintain_order=True).gather_every(QUICK_ONE_IN)
        rows = data.interactions.filter(pl.col(USER).is_in(kept.implode()))
        data = data.subset(rows, filter_note=f"one user in {QUICK_ONE_IN}")
        config = replace(QUICK, seed=seed)
    console.rule("1. Data: MovieLens, ratings of four stars or more as clicks, cut by time")
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
