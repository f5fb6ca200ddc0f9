"""`lorarec recommend`: items for one user, from the whole catalogue."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lorarec.cli.options import (
    BackboneId,
    Device,
    Dtype,
    Engine,
    Quantization,
    TrustRemoteCode,
    require_adapters,
    require_index,
    running,
)
from lorarec.data import Dataset, history_of
from lorarec.errors import LorarecError


def recommend(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    user: Annotated[str, typer.Option("--user", help="A user id of the dataset.")],
    adapter: Annotated[
        Path | None, typer.Option("--adapter", help="PEFT folder; the backbone alone without it.")
    ] = None,
    backbone: BackboneId = "embedded",
    dtype: Dtype = "auto",
    device: Device = None,
    quantization: Quantization = None,
    trust_remote_code: TrustRemoteCode = False,
    engine: Engine = "torch",
    top: Annotated[int, typer.Option("--top", min=1, help="How many items.")] = 10,
    pool: Annotated[int, typer.Option("--pool", min=1, help="Candidates of the cheap first stage.")] = 100,
    index: Annotated[
        Path | None, typer.Option(help="Folder made by `lorarec index`; without it a light one is made on the spot.")
    ] = None,
    allow: Annotated[Path | None, typer.Option(help="File of the only item ids to recommend, one per line.")] = None,
    deny: Annotated[Path | None, typer.Option(help="File of item ids not to recommend, one per line.")] = None,
    out_of_stock: Annotated[Path | None, typer.Option(help="File of item ids out of stock, one per line.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recommend items a user has not had yet: a cheap stage proposes, the adapter ranks.

    Each line says which of the user's items it rests on. With --json, items are ordered by score, which is a sum: the
    log_odds of yes against no or, with the readout likelihood, the log_likelihood of the title (the other is null),
    plus log_prior, the logarithm of a prior proportional to 1 / place in the index's order. probability is the softmax
    of the scores over the pool.

    Example: lorarec recommend data/shop --user u42 --adapter adapters/mixed --index index/shop --deny withdrawn.txt
    """
    require_adapters([] if adapter is None else [adapter])
    require_index(index)
    data = Dataset.load(dataset)
    history_of(data, user)
    only = None if allow is None else _item_ids(allow, data)
    refused = [item for path in (deny, out_of_stock) if path for item in _item_ids(path, data)]
    from lorarec.ranking import Ranker, recommendation_table
    from lorarec.ranking import recommend as recommend_items
    from lorarec.retrieval import Index

    loaded = None if index is None else Index.load(index, data)
    options = (backbone, dtype, device, quantization, trust_remote_code)
    with (
        running(engine, *options, adapters=[] if adapter is None else [adapter]) as (model, vllm),
        Ranker(model, adapter, engine=vllm) as ranker,
    ):
        found = recommend_items(ranker, data, user, top, pool, loaded, only, refused)
    if as_json:
        typer.echo(json.dumps([asdict(item) for item in found], indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    Console().print(recommendation_table(found, f"For user {user} of {data.name}"))


def _item_ids(path: Path, dataset: Dataset) -> list[str]:
    """The ids of a file, one per line; empty lines are passed over, and so are ids that the dataset does not have."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LorarecError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    found = [item for line in lines if (item := line.strip()) in dataset.titles]
    if not found and any(line.strip() for line in lines):
        raise LorarecError(
            f"{path} names no item of {dataset.name}: put one item id on each line, as in {next(iter(dataset.titles))}"
        )
    return found
