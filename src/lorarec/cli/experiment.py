"""The verb `experiment`: from a recipe to a table."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lorarec.cli.config_options import Only, config_options
from lorarec.cli.options import AGAIN, RUNTIME, Address, AsJson, ExecutorName, continued_by, ray_imports
from lorarec.errors import LorarecError
from lorarec.experiments import read_table_kind
from lorarec.training import TrackingConfig


@config_options
def experiment(
    *,
    recipe: Annotated[Path, typer.Argument(help="YAML file; docs/reference/recipes.md describes its keys.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the table and of finished rows; an unfinished one is continued.")
    ],
    as_json: AsJson = False,
    workers: Annotated[
        int, typer.Option(min=1, help="Rows at a time, each in a process of its own.", rich_help_panel=RUNTIME)
    ] = 1,
    executor: ExecutorName = "local",
    address: Address = None,
    tracking: Annotated[TrackingConfig, Only(("report_to", "project"))],
) -> None:
    """Run a recipe: fit every compared system with several seeds and measure all on the same cases.

    A recipe names a dataset, the settings, the seeds, and the rows with their options:

        dataset: data/beauty
        general: \\[general/games, general/office]
        seeds: [1, 2, 3]
        rows:
          bpr-mf:
          sasrec: {options: {num_layers: 2}, tune: {learning_rate: [1e-3, 3e-3]}}
          mixture-grid: {options: {epochs: 1}}

    Options of `tune` are searched by as many random trials for each row, on validation cases alone. OUT gets table.md,
    table.json and ndcg.png: means over seeds with 95% intervals, paired tests, time and memory. `table: clicks` makes
    RecLoRA's tables, `table: weights` MoLoRec's Figures 4 and 5.

    With --report-to, every row and seed is a run in the trackers as soon as it is done, with its options and metrics.

    The same command continues an interrupted run and repeats rows that were changed. If a row fails, the others are
    finished and the exit code is 1. With --executor ray, all paths must be folders that every machine sees.

    Example: lorarec experiment recipes/tables/sample.yaml --out tables/sample --workers 2
    """
    console, stderr = Console(), Console(stderr=True, highlight=False, soft_wrap=True)
    if address and executor != "ray":
        raise LorarecError("--address is for a Ray cluster: add --executor ray")
    read_table_kind(recipe)  # refuse an unusable recipe before anything heavy is loaded
    from lorarec.backbone import hide_weights_progress
    from lorarec.experiments import ProcessWorkers, Workers, run_recipe

    hide_weights_progress()
    with ExitStack() as stack:
        pool: Workers = ProcessWorkers(workers)
        if executor == "ray":
            with ray_imports():
                from lorarec.experiments import RayWorkers
                from lorarec.io import cluster
            stack.enter_context(cluster(address))
            pool = RayWorkers(workers)
        stack.enter_context(continued_by(AGAIN))
        result = run_recipe(recipe, out, workers=pool, tracking=tracking, console=stderr, progress=workers == 1)
    if as_json:
        typer.echo(json.dumps(result.values, indent=2, ensure_ascii=False))
    else:
        for table in result.tables:
            console.print(table)
        console.print(f"Written to {result.report}", markup=False, highlight=False, soft_wrap=True)
    if result.failed:
        raise typer.Exit(1)
