"""The verb `mix`: several adapters, combined into one."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorarec.backbone import BackboneConfig
from lorarec.cli.config_options import config_options
from lorarec.cli.options import AsJson, Overwrite, load_backbone, refuse_given, require_adapters
from lorarec.data import Dataset, load_split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, Progress, refuse_existing
from lorarec.lora import COMBINE_RULES, MixingConfig


@config_options
def mix(
    *,
    context: typer.Context,
    adapters: Annotated[list[Path], typer.Argument(help="Two or more PEFT folders or hub ids, of one backbone.")],
    out: Annotated[Path, typer.Option(help="Adapter folder to write.")],
    config: MixingConfig,
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset folder that prompts are drawn from (all methods but fixed).")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weight of each adapter with --method fixed, such as 0.3,0.7.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    backbone: BackboneConfig,
) -> None:
    """Mix adapters into one, with weights given, searched on validation cases, or found without labels.

    Example: lorarec mix adapters/general adapters/shop --dataset data/shop --out adapters/mixed

    Example: lorarec mix adapters/general adapters/shop --method fixed --weights 0.3,0.7 --out adapters/mixed
    """
    given = _parsed(weights)
    if given is not None and config.method != "fixed":
        raise LorarecError(
            f"--method {config.method} chooses the weights itself: leave out --weights or use --method fixed"
        )
    if config.method != "fixed" and dataset is None:
        raise LorarecError(f"--method {config.method} needs --dataset, the folder its prompts come from")
    _refuse_unused(context, config)
    if given is None and config.method == "fixed":
        raise LorarecError("--method fixed needs --weights: give one per adapter, as in 0.3,0.7")
    require_adapters(adapters)
    refuse_existing(out, overwrite, FolderKind.ADAPTER)
    data = None if config.method == "fixed" or dataset is None else Dataset.load(dataset)
    split = None if data is None else load_split(data)
    from lorarec.lora import mix as mix_adapters

    model = load_backbone(backbone)
    with Progress(f"Mixing by {config.method}"):
        result = mix_adapters(
            model, adapters, out, config, dataset=data, split=split, weights=given, overwrite=overwrite
        )
    if as_json:
        typer.echo(json.dumps({"folder": str(out), "weights": result.weights, "stopped": result.trace.stopped}))
        return
    layers = result.weights if isinstance(result.weights, dict) else {"all layers": result.weights}
    table = Table("layer", title=f"Weights ({config.method}, {config.combine})")
    for adapter in adapters:
        table.add_column(Text(str(adapter)))
    for name, row in layers.items():
        table.add_row(name, *(f"{weight:.3f}" for weight in row))
    console = Console()
    console.print(table)
    console.print(f"Mixture written to {out}", markup=False, highlight=False, soft_wrap=True)


def _refuse_unused(context: typer.Context, config: MixingConfig) -> None:
    """Refuse options that the method or the rule of combination does not read."""
    method, rule = f"with --method {config.method}", f"with --combine {config.combine}"
    if config.method == "fixed":
        refuse_given(context, ("dataset", "setting", "prompts", "cases", "token_budget"), method)
        if not config.combine.startswith("dare"):
            refuse_given(context, ("seed",), f"{method} and --combine {config.combine}, which draw nothing")
    elif config.method == "grid":
        refuse_given(context, ("setting", "prompts"), f"{method}, which reads validation cases")
    elif not config.calibrate:
        refuse_given(context, ("cases",), f"{method} without --calibrate, which reads no validation cases")
    if config.combine in COMBINE_RULES:
        refuse_given(context, ("density",), f"{rule}, which prunes nothing")


def _parsed(weights: str | None) -> list[float] | None:
    try:
        return None if weights is None else [float(part) for part in weights.split(",")]
    except ValueError:
        raise LorarecError(f"--weights {weights} must be numbers with commas between them, as in 0.3,0.7") from None
