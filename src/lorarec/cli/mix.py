"""The verb `mix`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from lorarec.cli.options import (
    BackboneId,
    Device,
    Dtype,
    Quantization,
    TrustRemoteCode,
    load_backbone,
    require_adapters,
)
from lorarec.data import Dataset, load_split
from lorarec.errors import LorarecError
from lorarec.io import ADAPTER, Progress, refuse_existing


def mix(
    adapters: Annotated[list[Path], typer.Argument(help="Two or more PEFT folders of one backbone.")],
    out: Annotated[Path, typer.Option(help="The adapter folder to write.")],
    method: Annotated[
        Literal["fixed", "grid", "entropy"],
        typer.Option(help="Weights given, by validation NDCG, or by entropy of unlabelled prompts."),
    ] = "entropy",
    combine: Annotated[
        Literal["factors", "deltas"], typer.Option(help="Sum A and B (rank r) or the products B A (rank sum of r).")
    ] = "factors",
    scope: Annotated[
        Literal["model", "layer"], typer.Option(help="One set of weights, or one per layer (entropy only).")
    ] = "model",
    weights: Annotated[str | None, typer.Option(help="For --method fixed: one per adapter, as in 0.3,0.7.")] = None,
    backbone: BackboneId = "embedded",
    dtype: Dtype = "auto",
    device: Device = None,
    quantization: Quantization = None,
    trust_remote_code: TrustRemoteCode = False,
    dataset: Annotated[Path | None, typer.Option(help="Dataset folder that the prompts come from.")] = None,
    setting: Annotated[Literal["warm", "new-item"], typer.Option(help="For entropy: whose prompts.")] = "warm",
    prompts: Annotated[int, typer.Option(min=1, help="For entropy: number of unlabelled prompts.")] = 50,
    cases: Annotated[int, typer.Option(min=1, help="For grid: number of validation cases.")] = 500,
    objective: Annotated[
        Literal["candidates", "tokens"],
        typer.Option(help="For entropy: of the candidate set or of the first answer tokens."),
    ] = "candidates",
    rank: Annotated[int | None, typer.Option(min=1, help="Cut the mixture to this rank (SVD).")] = None,
    seed: Annotated[int, typer.Option(help="Draws the prompts.")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Mix adapters into one, with weights given, searched on validation cases, or found without labels."""
    given = _parsed(weights)
    if method != "fixed" and dataset is None:
        raise LorarecError(f"--method {method} needs --dataset, the folder its prompts come from")
    require_adapters(adapters)
    refuse_existing(out, overwrite, ADAPTER)
    data = None if method == "fixed" or dataset is None else Dataset.load(dataset)
    split = None if data is None else load_split(data)
    from lorarec.lora import mix as mix_adapters

    model = load_backbone(backbone, dtype, device, quantization, trust_remote_code)
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
