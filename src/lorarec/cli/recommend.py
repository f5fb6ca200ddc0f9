"""The verb `recommend`: items of the whole catalogue for one user, several or all."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl
import typer

from lorarec.backbone import EMBEDDED, BackboneConfig
from lorarec.cli.config_options import config_options
from lorarec.cli.item_lists import known_items
from lorarec.cli.item_rules import read_rules
from lorarec.cli.options import (
    AGAIN,
    RUNTIME,
    AdapterFolder,
    Address,
    DatasetFolder,
    Engine,
    ExecutorName,
    IndexFolder,
    Overwrite,
    Pool,
    continued_by,
    imports_of_large_libraries,
    is_given,
    ray_imports,
    refuse_given,
    require_index,
    shared_path,
)
from lorarec.cli.rankers import FusionFolder, NewItemPrior, check_ranker, open_ranker
from lorarec.data import Dataset, ItemMatcher
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, refuse_existing
from lorarec.lora import adapter_folder
from lorarec.ranking import ServerConfig

if TYPE_CHECKING:
    from lorarec.ranking import Executor, PopulationConfig, Recommendation

FILTERS = "Items that may be recommended"


@config_options
def recommend(
    *,
    context: typer.Context,
    dataset: DatasetFolder,
    user: Annotated[list[str] | None, typer.Option("--user", help="User id of the dataset; may be repeated.")] = None,
    users: Annotated[
        Path | None, typer.Option(help="CSV, Parquet or JSONL file of users with a column user_id.")
    ] = None,
    all_users: Annotated[bool, typer.Option("--all", help="All users of the dataset; needs --out.")] = False,
    adapter: AdapterFolder = None,
    fusion: FusionFolder = None,
    new_item_prior: NewItemPrior = None,
    index: IndexFolder = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Number of items for each user; at most --pool.")] = 10,
    pool: Pool = 100,
    out: Annotated[
        Path | None, typer.Option(help="Folder of Parquet files to write; an unfinished one is continued.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: a list for one --user, or else lists by user.")
    ] = False,
    allow: Annotated[
        Path | None, typer.Option(help="File of the only item ids to recommend, one per line.", rich_help_panel=FILTERS)
    ] = None,
    deny: Annotated[
        Path | None, typer.Option(help="File of item ids not to recommend, one per line.", rich_help_panel=FILTERS)
    ] = None,
    out_of_stock: Annotated[
        Path | None, typer.Option(help="File of item ids out of stock, one per line.", rich_help_panel=FILTERS)
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Filter by a column of the items, such as 'price<=20', 'region in DE,AT' or 'genres contains Drama'; "
            "operators are =, !=, <, <=, >, >=, in, not in and contains; may be repeated.",
            rich_help_panel=FILTERS,
        ),
    ] = None,
    at_most: Annotated[
        list[str] | None,
        typer.Option(
            help="COLUMN=NUMBER: maximum number of a user's items with the same value in a column, such as brand=2; "
            "may be repeated.",
            rich_help_panel=FILTERS,
        ),
    ] = None,
    boost: Annotated[
        list[str] | None,
        typer.Option(
            help="NUMBER:FILTER: number that is added to the score of items of the pool to order them, such as "
            "0.5:brand=Lux; may be repeated.",
            rich_help_panel=FILTERS,
        ),
    ] = None,
    engine: Engine = "torch",
    server: ServerConfig,
    executor: ExecutorName = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Ray processes with a model each; 1 if not given.", rich_help_panel=RUNTIME),
    ] = None,
    address: Address = None,
    part_size: Annotated[
        int, typer.Option(min=1, help="Users per file, which are lost if a worker dies.", rich_help_panel=RUNTIME)
    ] = 1000,
    backbone: BackboneConfig,
) -> None:
    """Recommend items that users have not chosen yet: an index proposes candidates, an adapter or a fusion ranks them.

    Items are ordered by score: the log-odds of yes against no (or the log-likelihood of the title, with the readout
    likelihood) plus the logarithm of a prior proportional to 1 / place in the index's order. Probabilities are the
    softmax of the scores over the candidates. With --fusion, the score is the logarithm of the probability, and
    the index's order is one of its parts.

    With --out, each user gets a row of a Parquet file, and rank.json records data, models and options.
    The same command continues an interrupted run. With --executor ray, workers of a Ray cluster share the users; all
    paths must then be folders that every machine sees.

    Example: lorarec recommend data/shop --user u42 --adapter adapters/mixed --index index/shop

    Example: lorarec recommend data/shop --all --adapter adapters/mixed --index index/shop --out recommendations

    Example: lorarec recommend data/shop --user u42 --fusion fusions/shop

    Example: lorarec recommend data/shop --user u42 --where 'price<=20' --where 'region in DE,AT' --at-most brand=2
    """
    if not (user or users or all_users):
        raise LorarecError("name users with --user or --users, or take all with --all")
    if all_users and (user or users):
        raise LorarecError("--all takes all users: give it without --user and --users")
    prior = check_ranker(adapter, fusion, new_item_prior, engine)
    require_index(index)
    _refuse_combinations(
        out,
        {"all": all_users, "executor": executor == "ray", "workers": workers, "address": address},
        {"allow": allow, "deny": deny, "out-of-stock": out_of_stock, "engine": engine != "torch"},
    )
    if not is_given(context, "top"):
        top = min(top, pool)
    if top > pool:
        raise LorarecError(f"--top {top} is more than the {pool} candidates of --pool: raise --pool to {top} or more")
    if out is None:
        refuse_given(context, ("part_size", "overwrite"), "without --out")
    if executor == "local" and (workers or address):
        raise LorarecError("--workers and --address are for a Ray cluster: add --executor ray")
    if out is not None and (overwrite or not (out / FolderKind.RECOMMENDATIONS.marker).is_file()):
        refuse_existing(out, overwrite, FolderKind.RECOMMENDATIONS)
    rules = read_rules(where or [], at_most or [], boost or [])
    data = Dataset.load(dataset)
    rules.of(ItemMatcher(data))
    for each in user or ():
        data.history(each)
    only = None if allow is None else known_items(allow, data)
    blocked = [item for path in (deny, out_of_stock) if path for item in known_items(path, data)]
    with imports_of_large_libraries():
        from lorarec.backbone import hide_weights_progress
        from lorarec.ranking import read_population, recommend_to_folder, recommend_users
        from lorarec.retrieval import Index

    hide_weights_progress()
    chosen = list(dict.fromkeys(user or ()))
    if users or all_users:
        chosen = sorted({*chosen, *read_population(data, None if all_users else users)})
    if out is not None:
        assert data.folder is not None  # it was loaded
        job = _population(data.folder, adapter, index, backbone, top, pool)
        job = replace(job, fusion=fusion and fusion.resolve(), new_item_prior=prior, rules=rules)
        names = {
            "dataset": data.name,
            "backbone": job.backbone.id,
            "adapter": None if adapter is None else str(adapter),
            **({} if fusion is None else {"fusion": str(fusion)}),
        }
        with continued_by(AGAIN), _executor(job, data, executor, workers or 1, address) as running:
            counts = recommend_to_folder(running, sorted(chosen), out, part_size, overwrite, names, progress=True)
        _report_files(out, counts, as_json)
        return
    with open_ranker(data, backbone, adapter, fusion, prior, engine, server) as ranker:
        loaded = None if index is None else Index.load(index, data)
        recommended = recommend_users(ranker, data, chosen, top, pool, loaded, only, blocked, rules)
    one_user = not (users or all_users) and len(chosen) == 1
    _print(recommended, data.name, as_json, one_user)


def _refuse_combinations(out: Path | None, only_with_out: dict[str, Any], only_without: dict[str, Any]) -> None:
    """Refuse options that are given with --out but are for printed recommendations, or the other way round."""
    for name, given in only_with_out.items():
        if given and out is None:
            raise LorarecError(f"--{name} needs --out, the folder to write")
    for name, given in only_without.items():
        if given and out is not None:
            raise LorarecError(f"--{name} cannot be used with --out: leave out one of them")


def _population(
    dataset: Path, adapter: Path | None, index: Path | None, backbone: BackboneConfig, top: int, pool: int
) -> "PopulationConfig":
    """Return the config of workers, with absolute paths and commits, since their working directories may differ."""
    from lorarec.ranking import PopulationConfig

    is_path = backbone.id != EMBEDDED and Path(backbone.id).exists()
    return PopulationConfig(
        shared_path(dataset),
        adapter and shared_path(adapter_folder(adapter)),
        index and index.resolve(),
        replace(backbone, id=str(Path(backbone.id).resolve())) if is_path else backbone,
        top,
        pool,
    )


@contextmanager
def _executor(
    job: "PopulationConfig", data: Dataset, name: str, workers: int, address: str | None
) -> "Iterator[Executor]":
    """Open the executor of a job: this process, or workers of a Ray cluster."""
    from lorarec.ranking import LocalExecutor

    if name == "local":
        yield LocalExecutor(job, data)
        return
    with ray_imports():
        from lorarec.io import cluster
        from lorarec.ranking import RayExecutor
    with cluster(address):
        yield RayExecutor(job, workers)


def _report_files(out: Path, counts: dict[str, int], as_json: bool) -> None:
    files = pl.scan_parquet(sorted(out.glob("part-*.parquet")), glob=False)
    empty = files.filter(pl.col("item_ids").list.len() == 0).select(pl.len()).collect().item()
    if as_json:
        typer.echo(json.dumps({"folder": str(out), **counts, "users_with_nothing_left": empty}))
        return
    before = f", written before: {counts['parts_before']:,}" if counts["parts_before"] else ""
    without = f", users with nothing left to recommend: {empty:,}" if empty else ""
    figures = f"users: {counts['users']:,}, files: {counts['parts']:,}{before}{without}"
    typer.echo(f"Recommendations written to {out} ({figures})")


def _print(recommended: "dict[str, list[Recommendation]]", dataset: str, as_json: bool, one_user: bool) -> None:
    if as_json:
        lists = {user: [asdict(item) for item in items] for user, items in recommended.items()}
        printed = next(iter(lists.values())) if one_user else lists
        typer.echo(json.dumps(printed, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    from lorarec.ranking import recommendation_table

    for user, items in recommended.items():
        Console().print(recommendation_table(items, f"For user {user} of {dataset}"))
