"""The verb `index`: the first stage of recommendation, made once."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer


def index(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    out: Annotated[Path, typer.Option(help="The index folder to write.")],
    epochs: Annotated[
        int, typer.Option(min=0, help="Passes over the log of the next-item model (SASRec); 0 does without it.")
    ] = 20,
    width: Annotated[int, typer.Option(min=1, help="Size of an item's vector.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of the next-item model.")] = 42,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Index a catalogue, so that `lorarec recommend --index` finds candidates in milliseconds.

    The index proposes a few items for any history, and the adapter then ranks these few. Items come from five sources
    in turns: what follows such a history (a next-item model learned from the log), what was chosen together with it,
    what has similar titles, what has similar titles and is new, and what is popular. Make it again when the log or the
    catalogue has changed: it belongs to one state of the dataset. Histories may grow without that.

    Beyond 100,000 items the vectors are searched through faiss, if it is installed: pip install 'lorarec[index]'

    Example: lorarec index data/shop --out index/shop
    """
    from lorarec.data import Dataset
    from lorarec.io import INDEX, refuse_existing

    refuse_existing(out, overwrite, INDEX)
    begin = time.perf_counter()
    data = Dataset.load(dataset)
    from lorarec.recommenders import SASRecConfig
    from lorarec.retrieval import Index

    made = Index.build(data, SASRecConfig(epochs=epochs, hidden_size=width), seed=seed, progress=True)
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
