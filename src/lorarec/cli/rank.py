"""`lorarec rank`: items for every user, into a folder."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
import typer

from lorarec.cli.options import (
    EMBEDDED,
    Address,
    BackboneId,
    Device,
    Dtype,
    Quantization,
    TrustRemoteCode,
    needing_ray,
    quieten_transformers,
    require_adapters,
    require_index,
)
from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.io import RANKING, refuse_existing


def rank(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the parts; an unfinished one is continued.")],
    adapter: Annotated[
        Path | None, typer.Option("--adapter", help="PEFT folder; the backbone alone without it.")
    ] = None,
    backbone: BackboneId = "embedded",
    dtype: Dtype = "auto",
    device: Device = None,
    quantization: Quantization = None,
    trust_remote_code: TrustRemoteCode = False,
    top: Annotated[int, typer.Option("--top", min=1, help="How many items for each user.")] = 10,
    pool: Annotated[int, typer.Option("--pool", min=1, help="Candidates of the cheap first stage.")] = 100,
    index: Annotated[
        Path | None, typer.Option(help="Folder made by `lorarec index`; without it a light one is made on the spot.")
    ] = None,
    users: Annotated[
        Path | None, typer.Option(help="CSV, Parquet or JSONL file with a column user_id; all users without it.")
    ] = None,
    part_size: Annotated[int, typer.Option(min=1, help="Users of a part: what a killed worker loses.")] = 1000,
    engine: Annotated[Literal["torch", "ray"], typer.Option(help="In this process, or on a Ray cluster.")] = "torch",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of the ray engine, each with a model of its own; 1.")
    ] = None,
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Rank items for every user of a dataset, as `recommend` does for one, into a folder of Parquet files.

    There is one row per user with user_id, item_ids (best first), and lists of scores, log_odds, log_likelihoods,
    log_priors and probabilities. Items are ordered by score, which is a sum: the adapter's log-odds of yes against no
    or, with the readout likelihood, its log-likelihood of the title (the other column is null), plus the logarithm of a
    prior proportional to 1 / place in the index's order. probability is the softmax of the scores over the pool.
    rank.json records the data, models and options.

    Users are cut into parts in the order of their ids. Run the same command again after an interruption: only the
    missing parts are made. A folder that was begun with other data or options is refused.

    With --engine ray, workers of a Ray cluster share the parts, each on a GPU of its own if there are any; one that
    dies is replaced and its part made again. On every machine all paths, --out too, must be the same shared folders,
    and lorarec[ray] must be installed.

      lorarec rank data/shop --adapter adapters/mixed --index index/shop --out scores

      lorarec rank data/shop --adapter adapters/mixed --index index/shop --out scores --engine ray --workers 2
    """
    if engine == "torch" and (workers or address):
        raise LorarecError("--workers and --address are of the ray engine: add --engine ray")
    if overwrite or not (out / RANKING.marker).is_file():
        refuse_existing(out, overwrite, RANKING)
    require_adapters([] if adapter is None else [adapter])
    require_index(index)
    data = Dataset.load(dataset)
    quieten_transformers()
    from lorarec.ranking import Executor, LocalExecutor, PopulationConfig, read_population, recommend_to_folder

    asked = read_population(data, users)
    if backbone != EMBEDDED and Path(backbone).is_dir():
        backbone = str(Path(backbone).resolve())
    job = PopulationConfig(
        dataset.resolve(),
        adapter and adapter.resolve(),
        index and index.resolve(),
        backbone,
        dtype,
        device,
        quantization,
        trust_remote_code,
        top,
        pool,
    )
    names = {"dataset": data.name, "backbone": backbone, "adapter": adapter and str(adapter)}
    chosen: Executor
    with ExitStack() as stack:
        if engine == "ray":
            with needing_ray():
                from lorarec.io import cluster
                from lorarec.ranking import RayExecutor
            stack.enter_context(cluster(address))
            chosen = RayExecutor(job, workers or 1)
        else:
            chosen = LocalExecutor(job, data)
        figures = recommend_to_folder(chosen, asked, out, part_size, overwrite, names, progress=True)
    nothing_left = pl.scan_parquet(out / "part-*.parquet").filter(pl.col("item_ids").list.len() == 0)
    figures["users_with_nothing_left"] = nothing_left.select(pl.len()).collect().item()
    if as_json:
        typer.echo(json.dumps({"folder": str(out), **figures}))
        return
    before = f", {figures['parts_before']:,} of them before" if figures["parts_before"] else ""
    empty = figures["users_with_nothing_left"]
    without = f", {empty:,} of the users have nothing left to recommend" if empty else ""
    typer.echo(f"{figures['users']:,} users ranked in {figures['parts']:,} parts{before}{without}: {out}")
