"""The verb `demo`."""

from pathlib import Path
from typing import Annotated

import typer

from lorarec.demo import FULL, QUICK, run_demo


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for adapters, metrics.json and report.md.")] = Path(
        "demo-output"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="A fraction of the work, to see that all parts run.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of splits, training and samples.")] = 42,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Train a general and a specific adapter on bundled film ratings, mix them without labels, and compare.

    Runs offline on two cores in about six minutes and ends with ten recommendations for a user.
    """
    run_demo(out, QUICK if quick else FULL, seed, overwrite)
