"""`lorarec recommend`: items for one user, from the whole catalogue."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lorarec.commands.options import BackboneId, Device, Dtype, Quantization, TrustRemoteCode


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
    top: Annotated[int, typer.Option("--top", min=1, help="How many items.")] = 10,
    pool: Annotated[int, typer.Option("--pool", min=1, help="Candidates of the cheap first stage.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recommend items a user has not had yet: a cheap stage proposes, the adapter ranks.

    Each line says which of the user's items it rests on.
    """
    from lorarec.backbone import Backbone
    from lorarec.data import Dataset
    from lorarec.ranking import Ranker
    from lorarec.ranking import recommend as recommend_items
    from lorarec.ranking.tables import recommendation_table

    data = Dataset.load(dataset)
    model = Backbone.load(backbone, dtype, device, quantization, trust_remote_code)
    with Ranker(model, adapter) as ranker:
        found = recommend_items(ranker, data, user, top, pool)
    if as_json:
        typer.echo(json.dumps([asdict(item) for item in found], indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    Console().print(recommendation_table(found, f"For user {user} of {data.name}"))
