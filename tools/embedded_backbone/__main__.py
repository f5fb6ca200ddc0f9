"""`lorarec backbone`: make the embedded backbone again, or one of your own like it."""

import time
from pathlib import Path
from typing import Annotated

import typer

from lorarec.cli import quieten_transformers
from lorarec.errors import LorarecError

backbone_app = typer.Typer(help="Build a small backbone from item texts.", no_args_is_help=True)


@backbone_app.callback()
def backbone() -> None:
    """Build a small backbone from item texts."""


@backbone_app.command("build")
def build(
    datasets: Annotated[
        list[Path], typer.Argument(help="Dataset folders of general domains, never of evaluated ones.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to make; OUT.work keeps the work in progress.")],
    encoder: Annotated[
        Path | None, typer.Option("--encoder", help="Sentence encoder folder that relates titles by meaning.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps of about 3,000 tokens.")] = 3600,
    seed: Annotated[int, typer.Option("--seed", help="Of the weights and of every batch.")] = 0,
) -> None:
    """Train the embedded backbone's recipe: copying, noisy repeats, related titles, and histories as running text.

    Interrupted? Run the same command again: it continues from its last checkpoint.
    """
    from lorarec.data import Dataset

    if out.exists():
        raise LorarecError(f"{out} exists already: choose another --out")
    if encoder is not None and not encoder.is_dir():
        raise LorarecError(f"encoder {encoder} does not exist: give a sentence encoder's folder")
    domains = [Dataset.load(path) for path in datasets]
    quieten_transformers()
    from tools.embedded_backbone.build import BuildOptions, build_backbone

    started = time.monotonic()
    folder = build_backbone(domains, out, encoder, BuildOptions(steps=steps, seed=seed))
    typer.echo(f"{folder} built in {(time.monotonic() - started) / 60:.1f} minutes; use it with --backbone {folder}")
