"""Command line of this tool: `python -m tools.embedded_backbone build --help`, from the root of the repository."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from lorarec.backbone import hide_weights_progress
from lorarec.data import Dataset
from lorarec.errors import LorarecError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def embedded_backbone() -> None:
    """Make the embedded backbone, or a small backbone like it from your own datasets."""


@app.command()
def build(
    datasets: Annotated[
        list[Path], typer.Argument(help="Dataset folders of general domains, never of evaluated ones.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to make; OUT.work holds the work in progress.")],
    encoder: Annotated[
        Path | None, typer.Option(help="Folder of a sentence encoder, which relates titles by meaning.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of about 3,000 tokens each.")] = 3600,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of every batch.")] = 0,
) -> None:
    """Train a backbone on four tasks: copying lists, noisy repeats, related titles, and histories as running text.

    After an interruption the same command continues from the last checkpoint.
    """
    if encoder is not None and not encoder.is_dir():
        raise LorarecError(f"encoder {encoder} does not exist: give the folder of a sentence encoder")
    domains = [Dataset.load(path) for path in datasets]
    hide_weights_progress()
    from tools.embedded_backbone.build import BuildConfig, build_backbone

    started = time.monotonic()
    folder = build_backbone(domains, out, encoder, BuildConfig(steps=steps, seed=seed))
    typer.echo(f"{folder} built in {(time.monotonic() - started) / 60:.1f} minutes; use it with --backbone {folder}")


if __name__ == "__main__":
    try:
        app()
    except LorarecError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
