"""The verb `mix`: several adapters, combined into one."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from lorarec.backbone import BackboneConfig
from lorarec.cli.config_options import config_options
from lorarec.cli.options import AsJson, Overwrite, load_backbone, require_adapters
from lorarec.data import Dataset, load_split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, Progress, refuse_existing
from lorarec.lora import Combine

SEARCH = "Search for weights (grid, entropy)"


@config_options
def mix(
    *,
    adapters: Annotated[list[Path], typer.Argument(help="Two or more PEFT folders of one backbone.")],
    out: Annotated[Path, typer.Option(help="Adapter folder to write.")],
    method: Annotated[
        Literal["fixed", "grid", "entropy"],
        typer.Option(help="Weights: given, by NDCG on validation cases, or by entropy of unlabelled prompts."),
    ] = "entropy",
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset folder that prompts are drawn from (grid, entropy).")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weight of each adapter with --method fixed, such as 0.3,0.7.")
    ] = None,
    combine: Annotated[
        Combine, typer.Option(help="Mix the factors A and B, or the products B A of the adapters.")
    ] = "factors",
    scope: Annotated[
        Literal["model", "layer"], typer.Option(help="One weight per adapter, or one per layer (entropy only).")
    ] = "model",
    rank: Annotated[
        int | None, typer.Option(min=1, help="Truncate the mixture to this rank by a singular value decomposition.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    setting: Annotated[
        Literal["warm", "new-item"],
        typer.Option(help="Setting of the test cases that prompts for entropy are drawn from.", rich_help_panel=SEARCH),
    ] = "warm",
    prompts: Annotated[
        int, typer.Option(min=1, help="Number of unlabelled prompts for entropy.", rich_help_panel=SEARCH)
    ] = 50,
    objective: Annotated[
        Literal["candidates", "tokens"],
        typer.Option(help="Entropy of the candidates, or of the first tokens of an answer.", rich_help_panel=SEARCH),
    ] = "candidates",
    cases: Annotated[
        int, typer.Option(min=1, help="Number of validation cases for grid.", rich_help_panel=SEARCH)
    ] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the drawn prompts.", rich_help_panel=SEARCH)] = 42,
    backbone: BackboneConfig,
) -> None:
    """Mix adapters into one, with weights given, searched on validation cases, or found without labels.

    Example: lorarec mix adapters/general adapters/shop --dataset data/shop --out adapters/mixed

    Example: lorarec mix adapters/general adapters/shop --method fixed --weights 0.3,0.7 --out adapters/mixed
    """
    given = _parsed(weights)
    if method != "fixed" and dataset is None:
        raise LorarecError(f"--method {method} needs --dataset, the folder its prompts come from")
    require_adapters(adapters)
    refuse_existing(out, overwrite, FolderKind.ADAPTER)
    data = None if method == "fixed" or dataset is None else Dataset.load(dataset)
    split = None if data is None else load_split(data)
    from lorarec.lora import mix as mix_adapters

    model = load_backbone(backbone)
    with Progress(f"Mixing by {method}"):
        result = mix_adapters(
            model,
            adapters,
            out,
            method=method,
            dataset=data,
            split=split,
            setting=setting,
            prompts=prompts,
            cases=cases,
            weights=given,
            combine=combine,
            scope=scope,
            objective=objective,
            rank=rank,
            seed=seed,
            overwrite=overwrite,
        )
    if as_json:
        typer.echo(json.dumps({"folder": str(out), "weights": result.weights, "stopped": result.trace.stopped}))
        return
    layers = result.weights if isinstance(result.weights, dict) else {"all layers": result.weights}
    table = Table("layer", *(str(adapter) for adapter in adapters), title=f"Weights ({method}, {combine})")
    for name, row in layers.items():
        table.add_row(name, *(f"{weight:.3f}" for weight in row))
    console = Console()
    console.print(table)
    console.print(f"Mixture written to {out}")


def _parsed(weights: str | None) -> list[float] | None:
    try:
        return None if weights is None else [float(part) for part in weights.split(",")]
    except ValueError:
        raise LorarecError(f"--weights {weights} must be numbers with commas between them, as in 0.3,0.7") from None
