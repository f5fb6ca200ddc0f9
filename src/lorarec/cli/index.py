"""The verb `index`: the first stage of recommendation, which `recommend` reads."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from lorarec.cli.config_options import Only, config_options
from lorarec.cli.options import AsJson, DatasetFolder, Overwrite, refuse_given
from lorarec.recommenders import SASRecConfig


@config_options
def index(
    *,
    context: typer.Context,
    dataset: DatasetFolder,
    out: Annotated[Path, typer.Option(help="Index folder to write.")],
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    config: Annotated[SASRecConfig, Only(("epochs", "hidden_size"))],
    text_encoder: Annotated[
        str | None,
        typer.Option(help="Sentence-transformers folder or hub id that compares titles; TF-IDF if not given."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the next-item model.")] = 42,
) -> None:
    """Index a catalogue, so that `lorarec recommend --index` finds candidates in milliseconds.

    The index proposes candidates for any history from six sources: a next-item model (SASRec) trained on the log,
    items that were chosen together with the history's, items that often came soon after them, items with similar
    titles, new items with similar titles, and popular items. It belongs to one state of the dataset: make it again when
    the log or the catalogue has changed. Histories may grow without that. With --epochs 0 there is no next-item model.
    A text encoder is needed while the index is made, not when it is used: pip install 'lorarec\\[text]'

    Beyond 100,000 items the vectors are searched by faiss, if it is installed: pip install 'lorarec\\[index]'

    Example: lorarec index data/shop --out index/shop
    """
    from lorarec.data import Dataset
    from lorarec.io import FolderKind, refuse_existing

    if config.epochs == 0:
        refuse_given(context, ("hidden_size",), "with --epochs 0, which trains no next-item model")
    refuse_existing(out, overwrite, FolderKind.INDEX)
    begin = time.perf_counter()
    data = Dataset.load(dataset)
    from lorarec.backbone import hide_weights_progress
    from lorarec.retrieval import Index

    hide_weights_progress()
    made = Index.build(data, config, text_encoder=text_encoder, seed=seed, progress=True)
    made.save(out, overwrite)
    seconds = round(time.perf_counter() - begin, 1)
    size = sum(path.stat().st_size for path in out.iterdir())
    counts = made.record["counts"]
    if as_json:
        typer.echo(json.dumps({"folder": str(out), "sources": list(made.sources), "bytes": size, **counts}))
        return
    typer.echo(
        f"Index of {counts['items']:,} items and {counts['interactions']:,} interactions written to {out}: "
        f"{size / 2**20:.1f} MiB in {seconds} s; sources: {', '.join(made.sources)}"
    )
