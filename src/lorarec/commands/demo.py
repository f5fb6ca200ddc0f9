"""The verb `demo`, and `demo personal`."""

from pathlib import Path
from typing import Annotated

import typer

from lorarec.artefacts import refuse_existing
from lorarec.commands.options import quieten_transformers
from lorarec.errors import LorarecError
from lorarec.folder_kinds import DEMO, PERSONALIZED

Quick = Annotated[bool, typer.Option("--quick", help="A fraction of the work, to see that all parts run.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]

demo_app = typer.Typer()


@demo_app.callback(invoke_without_command=True)
def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="Folder for dataset, adapters and report.md.")] = Path(
        "demo-output"
    ),
    quick: Quick = False,
    seed: Annotated[int, typer.Option("--seed", help="Of splits, training and samples.")] = 42,
    overwrite: Overwrite = False,
) -> None:
    """Train a general and a specific adapter on bundled film ratings, mix them without labels, and compare.

    Runs offline on two cores in about six minutes and ends with ten recommendations for a user. `demo personal` shows
    adapters for every user.
    """
    if context.invoked_subcommand is None:
        refuse_existing(out, overwrite, DEMO)
        quieten_transformers()
        from lorarec.demo import FULL, QUICK, run_demo

        run_demo(out, QUICK if quick else FULL, seed, overwrite)
    elif any(getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE" for name in context.params):
        raise LorarecError("options of `demo personal` go behind it, as in: lorarec demo personal --quick")


@demo_app.command("personal")
def personal(
    out: Annotated[Path, typer.Option("--out", help="Folder for models, metrics.json and report.md.")] = Path(
        "demo-personal-output"
    ),
    quick: Quick = False,
    seed: Annotated[int, typer.Option("--seed", help="Of samples and training.")] = 42,
    overwrite: Overwrite = False,
) -> None:
    """Train a conventional recommender on bundled film ratings, and adapters for every user on a few percent of them.

    Runs offline on two cores in less than ten minutes and compares both with one adapter for all users.
    """
    refuse_existing(out, overwrite, PERSONALIZED)
    quieten_transformers()
    from lorarec.demo import run_personal_demo

    run_personal_demo(out, quick, seed, overwrite)
