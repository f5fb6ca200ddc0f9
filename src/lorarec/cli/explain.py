"""`lorarec explain`: what a recommendation rests on."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lorarec.cli.options import (
    BackboneId,
    Device,
    Dtype,
    Quantization,
    TrustRemoteCode,
    load_backbone,
    require_adapters,
    require_index,
)
from lorarec.data import Dataset, history_of


def explain(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    user: Annotated[str, typer.Option("--user", help="A user id of the dataset.")],
    item: Annotated[str | None, typer.Option("--item", help="An item id; the top recommendation if not given.")] = None,
    adapter: Annotated[
        Path | None, typer.Option("--adapter", help="PEFT folder; the backbone alone without it.")
    ] = None,
    backbone: BackboneId = "embedded",
    dtype: Dtype = "auto",
    device: Device = None,
    quantization: Quantization = None,
    trust_remote_code: TrustRemoteCode = False,
    pool: Annotated[int, typer.Option("--pool", min=1, help="Candidates that the item is compared with.")] = 100,
    index: Annotated[
        Path | None, typer.Option(help="Folder made by `lorarec index`; without it a light one is made on the spot.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how an item's score changes when each item of the history is left out.

    Positive numbers speak for the item. A backbone with a chat template also gives a reason in words.

    Example: lorarec explain data/shop --user u42 --item i7 --adapter adapters/mixed
    """
    require_adapters([] if adapter is None else [adapter])
    require_index(index)
    data = Dataset.load(dataset)
    history_of(data, user)
    from lorarec.ranking import Ranker, explanation_table
    from lorarec.ranking import explain as explain_item
    from lorarec.retrieval import Index

    loaded = None if index is None else Index.load(index, data)
    model = load_backbone(backbone, dtype, device, quantization, trust_remote_code)
    with Ranker(model, adapter) as ranker:
        found = explain_item(ranker, data, user, item, pool, loaded)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False))
    else:
        from rich.console import Console

        shown = (
            f"{found.title} for user {user}: score {found.score:.3f}, p {found.probability:.4f} of {found.candidates}"
        )
        Console().print(explanation_table(found, shown))
        if found.reason is not None:
            typer.echo(found.reason)
    if found.reason is None:
        typer.echo(f"A reason in words needs a chat model: {backbone} has no chat template.", err=True)
