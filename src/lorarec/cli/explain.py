"""The verb `explain`: how each item of the history changes a score."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from lorarec.backbone import BackboneConfig
from lorarec.cli.config_options import config_options
from lorarec.cli.options import (
    AdapterFolder,
    AsJson,
    DatasetFolder,
    IndexFolder,
    Pool,
    User,
    imports_of_large_libraries,
    require_index,
)
from lorarec.cli.rankers import FusionFolder, NewItemPrior, check_ranker, open_ranker
from lorarec.data import Dataset


@config_options
def explain(
    *,
    dataset: DatasetFolder,
    user: User,
    item: Annotated[str | None, typer.Option("--item", help="Item id; the top recommendation if not given.")] = None,
    adapter: AdapterFolder = None,
    fusion: FusionFolder = None,
    new_item_prior: NewItemPrior = None,
    index: IndexFolder = None,
    pool: Pool = 100,
    as_json: AsJson = False,
    backbone: BackboneConfig,
) -> None:
    """Show how an item's score changes when each item of the history is left out.

    Positive numbers raise the score. A backbone with a chat template also gives a reason in words. With --fusion, the
    score is divided into the parts of the recommenders as well, each less its mean over the candidates.

    Example: lorarec explain data/shop --user u42 --item i7 --adapter adapters/mixed

    Example: lorarec explain data/shop --user u42 --fusion fusions/shop
    """
    prior = check_ranker(adapter, fusion, new_item_prior)
    require_index(index)
    data = Dataset.load(dataset)
    data.history(user)
    with imports_of_large_libraries():
        from lorarec.ranking import explain as explain_item
        from lorarec.ranking import explanation_table, parts_table
        from lorarec.retrieval import Index

    loaded = None if index is None else Index.load(index, data)
    with open_ranker(data, backbone, adapter, fusion, prior) as ranker:
        explanation = explain_item(ranker, data, user, item, pool, loaded)
    if as_json:
        typer.echo(json.dumps(asdict(explanation), indent=2, ensure_ascii=False))
    else:
        from rich.console import Console

        score = f"score {explanation.score:.3f}, p {explanation.probability:.4f} of {explanation.candidates}"
        title = f"{explanation.title} for user {user}: {score}"
        console = Console()
        if explanation.parts:
            console.print(parts_table(explanation, title))
        console.print(explanation_table(explanation, title))
        if explanation.reason is not None:
            typer.echo(explanation.reason)
    if explanation.reason is None and fusion is None:
        typer.echo(f"A reason in words needs a chat model: {backbone.id} has no chat template.", err=True)
