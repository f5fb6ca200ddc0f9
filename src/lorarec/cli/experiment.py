"""The verb `experiment`."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from lorarec.cli.options import Address, needing_ray, quieten_transformers
from lorarec.errors import LorarecError
from lorarec.experiments import read_table_kind


def experiment(
    recipe: Annotated[Path, typer.Argument(help="A YAML file; docs/reference/recipes.md has its keys.")],
    out: Annotated[Path, typer.Option(help="Folder for the table and the finished rows; one that is there goes on.")],
    workers: Annotated[int, typer.Option(min=1, help="Rows fitted side by side, each in its own process.")] = 1,
    engine: Annotated[
        Literal["processes", "ray"], typer.Option(help="Processes of this machine, or of a Ray cluster.")
    ] = "processes",
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Fill a table: fit every compared system with several seeds and measure all on the same cases.

    A recipe names a dataset, the settings, the seeds, and the rows with their options:

        dataset: data/beauty
        general: \\[general/games, general/office]
        settings: \\[warm, new-item]
        backbone: embedded
        seeds: [1, 2, 3]
        trials: 8
        rows:
          bpr-mf:
          sasrec: {options: {depth: 2}, tune: {lr: [1e-3, 3e-3], width: [32, 64]}}
          mixture-grid: {options: {epochs: 1, learning_rate: 1e-3}}

    Rows with `tune` get the same number of random trials each, judged on validation cases alone. popularity, item-knn,
    tf-idf and random stand in every table. OUT gets table.md, table.json and ndcg.png: means over seeds with 95%
    intervals, paired tests against the best other row, time and memory.

    With `table: clicks`, the recipe's rows are RecLoRA's on a click log (recommenders, CTR-BERT, TALLRec, ReLLa,
    RecLoRA, each LoRA also blended) and analyses of RecLoRA; OUT gets tables.md, tables.json, main.png and
    analyses.png. With `table: weights`, OUT gets where entropy puts the weight between a general and a specific adapter
    and how many unlabelled prompts that takes, as JSON and PNG (MoLoRec, Figures 4 and 5).

    Interrupted or run again, it does only what is missing; after a change of a ranking row only that row. A row that
    fails is named, the others stand, and the exit code is 1.

    With --engine ray, rows are tasks of a Ray cluster whose machines see the same paths, each on a GPU of its own if
    there are any; lorarec[ray] must be installed.

    Examples:

      lorarec experiment recipes/tables/sample.yaml --out tables/sample --workers 2

      lorarec experiment recipes/tables/tables1-2-toys.yaml --out /share/toys --engine ray --address auto --workers 16

      lorarec experiment recipes/tables/reclora-sample.yaml --out tables/reclora-sample --workers 2

      lorarec experiment recipes/tables/figures4-5.yaml --out figures
    """
    console, stderr = Console(), Console(stderr=True, highlight=False, soft_wrap=True)
    if address and engine != "ray":
        raise LorarecError("--address is of the ray engine: add --engine ray")
    read_table_kind(recipe)  # refuses what is no recipe before anything heavy is loaded
    quieten_transformers()
    from lorarec.experiments import ProcessWorkers, Workers, run_recipe

    with ExitStack() as stack:
        doing: Workers = ProcessWorkers(workers)
        if engine == "ray":
            with needing_ray():
                from lorarec.experiments import RayWorkers
                from lorarec.io import cluster
            stack.enter_context(cluster(address))
            doing = RayWorkers(workers)
        result = run_recipe(recipe, out, workers=doing, console=stderr, progress=workers == 1)
    if as_json:
        typer.echo(json.dumps(result.values, indent=2, ensure_ascii=False))
    else:
        for table in result.tables:
            console.print(table)
        console.print(f"Written to {result.report}", markup=False, highlight=False, soft_wrap=True)
    if result.failed:
        raise typer.Exit(1)
