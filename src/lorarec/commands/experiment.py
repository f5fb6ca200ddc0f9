"""The verb `experiment`."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from lorarec.errors import LorarecError
from lorarec.evaluation import evaluation_table
from lorarec.experiments import Processes, Workers, read_experiment, run_experiment


def experiment(
    recipe: Annotated[Path, typer.Argument(help="A YAML file; recipes/README.md tells its keys.")],
    out: Annotated[Path, typer.Option(help="Folder for the table and the finished rows; one that is there goes on.")],
    workers: Annotated[int, typer.Option(min=1, help="Rows fitted side by side, each in its own process.")] = 1,
    engine: Annotated[
        Literal["processes", "ray"], typer.Option(help="Processes of this machine, or of a Ray cluster.")
    ] = "processes",
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster: auto or HOST:PORT; one is started here without it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Fill a table: fit every compared system with several seeds and rank the same candidate sets by all.

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
          mixture-grid: {options: {epochs: 1, lr: 1e-3}}

    Rows with `tune` get the same number of random trials each, judged on validation cases alone. popularity, item-knn,
    tf-idf and random stand in every table. OUT gets table.md, table.json and ndcg.png: means over seeds with 95%
    intervals, paired tests against the best other row, time and memory. Interrupted or run again, it does only what is
    missing; after a change of one row only that row. A row that fails is named, the others stand, and the exit code
    is 1.

    With --engine ray, rows are tasks of a Ray cluster whose machines see the same paths, each on a GPU of its own if
    there are any; lorarec[ray] must be installed.

    Examples:

      lorarec experiment recipes/sample.yaml --out tables/sample --workers 2

      lorarec experiment recipes/table1.yaml --out /share/table1 --engine ray --address auto --workers 16
    """
    console, told = Console(), Console(stderr=True, highlight=False, soft_wrap=True)
    bars = console.is_terminal and workers == 1 and not as_json
    if address and engine != "ray":
        raise LorarecError("--address is of the ray engine: add --engine ray")
    chosen = read_experiment(recipe)
    with ExitStack() as stack:
        doing: Workers = Processes(workers)
        if engine == "ray":
            try:
                from lorarec.experiments.on_ray import RayTasks
                from lorarec.ray_cluster import cluster
            except ImportError as error:
                raise LorarecError(f"--engine ray needs {error.name}: pip install 'lorarec[ray]'") from None
            stack.enter_context(cluster(address))
            doing = RayTasks(workers)
        table = run_experiment(chosen, out, workers=doing, console=told, progress=bars)
    if as_json:
        typer.echo(json.dumps(table.as_dict(), indent=2, ensure_ascii=False))
    else:
        for name in table.evaluation.settings:
            console.print(evaluation_table(table.evaluation, name))
        console.print(f"Table written to {out / 'table.md'}", markup=False, highlight=False, soft_wrap=True)
    if table.failed:
        raise typer.Exit(1)
