"""The verb `rank`: given items, in the order in which they fit a history."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorarec.backbone import BackboneConfig
from lorarec.cli.config_options import config_options
from lorarec.cli.item_lists import read_ids
from lorarec.cli.options import AdapterFolder, AsJson, DatasetFolder, Engine, imports_of_large_libraries
from lorarec.cli.rankers import FusionFolder, NewItemPrior, check_ranker, open_ranker
from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.ranking import ServerConfig


@config_options
def rank(
    *,
    dataset: DatasetFolder,
    user: Annotated[str | None, typer.Option("--user", help="User id of the dataset, whose history is read.")] = None,
    history: Annotated[
        list[str] | None, typer.Option("--history", help="Item id of a history, oldest first; in place of --user.")
    ] = None,
    item: Annotated[list[str] | None, typer.Option("--item", help="Item id to rank; may be repeated.")] = None,
    candidates: Annotated[Path | None, typer.Option(help="File of item ids to rank, one per line.")] = None,
    adapter: AdapterFolder = None,
    fusion: FusionFolder = None,
    new_item_prior: NewItemPrior = None,
    top: Annotated[int | None, typer.Option("--top", min=1, help="Number of items to show; all if not given.")] = None,
    as_json: AsJson = False,
    engine: Engine = "torch",
    server: ServerConfig,
    backbone: BackboneConfig,
) -> None:
    """Rank given items for a user of a dataset, or for a history of items.

    Items are ordered by score: the log-odds of yes against no, or the log-likelihood of the title with the readout
    likelihood. Probabilities are the softmax of the scores over the given items. The score of a fusion is the logarithm
    of the probability.

    Example: lorarec rank data/shop --user u42 --item i7 --item i9 --adapter adapters/mixed

    Example: lorarec rank data/shop --history i1 --history i2 --candidates shelf.txt --top 5
    """
    if (user is None) == (not history):
        raise LorarecError("name whom to rank for: give either --user or --history")
    prior = check_ranker(adapter, fusion, new_item_prior, engine)
    data = Dataset.load(dataset)
    if user is not None:
        data.history(user)
    ids = list(dict.fromkeys([*(item or ()), *(read_ids(candidates) if candidates else ())]))
    if not ids:
        raise LorarecError("name items to rank with --item or --candidates")
    for each in [*ids, *(history or ())]:
        if each not in data.titles:
            known = next(iter(data.titles))
            raise LorarecError(f"item {each} is not in dataset {data.name}: its items are like {known}")
    with imports_of_large_libraries():
        from lorarec.ranking import rank_items

    with open_ranker(data, backbone, adapter, fusion, prior, engine, server) as ranker:
        ranked = rank_items(ranker, data, ids, user=user, history=history or None, top_k=top)
    if as_json:
        typer.echo(
            json.dumps([{"item_id": ids[row.index], **asdict(row)} for row in ranked], indent=2, ensure_ascii=False)
        )
        return
    table = Table("#", "item", "title", "score", "p", title=Text(f"{len(ids)} items of {data.name}, best first"))
    for place, row in enumerate(ranked, start=1):
        # Text keeps square brackets in ids and titles from being read as markup.
        names = Text(ids[row.index]), Text(row.title)
        table.add_row(str(place), *names, f"{row.score:.3f}", f"{row.probability:.3f}")
    Console().print(table)
