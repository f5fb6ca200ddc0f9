"""The verb `train`."""

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorarec.backbone import BackboneConfig
from lorarec.cli.config_options import config_options
from lorarec.cli.options import WITH_RESUME, AsJson, Overwrite, Resume, continued_by, load_backbone, require_adapters
from lorarec.data import Dataset, Split, few_shot, load_split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, read_json, refuse_existing
from lorarec.training import TrackingConfig, TrainingConfig, read_recipe

#: Keys of a recipe beside the fields of `TrainingConfig` and `TrackingConfig`.
RECIPE_KEYS = (
    "datasets",
    "backbone",
    "dtype",
    "device",
    "quantization",
    "attn_implementation",
    "out",
    "from",
    "few_shot",
)


def _use_recipe(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a recipe the defaults of the options.

    Raises:
        LorarecError: If the recipe cannot be read, has an unknown key, or a value is of the wrong type.
    """
    if path is None:
        return None
    options = (*fields(TrainingConfig), *fields(TrackingConfig))
    values = read_recipe(path, {*RECIPE_KEYS, *(field.name for field in options)})
    if isinstance(values.get("datasets"), str):
        values["datasets"] = [values["datasets"]]
    if isinstance(values.get("report_to"), list):
        values["report_to"] = ",".join(map(str, values["report_to"]))
    context.default_map = {"start_from" if key == "from" else key: value for key, value in values.items()}
    for option in context.command.params:
        value = context.default_map.get(option.name)
        try:
            if isinstance(value, bool) and not getattr(option, "is_bool_flag", False):
                raise typer.BadParameter("only switches can be true or false")
            option.process_value(context, value)
        except typer.BadParameter as error:
            key = "from" if option.name == "start_from" else option.name
            reason = error.message.removeprefix("Value error, ")
            raise LorarecError(f"recipe {path}, key {key}: {value!r} cannot be used: {reason}") from None
    return path


@config_options
def train(
    *,
    datasets: Annotated[
        list[Path] | None,
        typer.Argument(help="Dataset folders or hub:OWNER/NAME: several make a general adapter, one a specific one."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Adapter folder to write.")] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of options; options on the command line take precedence.",
            is_eager=True,
            callback=_use_recipe,
        ),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option("--from", help="PEFT folder or hub id to train further, with its layers, r and alpha."),
    ] = None,
    few_shot: Annotated[float | None, typer.Option(help="Train on this fraction of the users.")] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    config: TrainingConfig,
    tracking: TrackingConfig,
    backbone: BackboneConfig,
) -> None:
    """Train a LoRA adapter on one dataset or several.

    Example: lorarec train data/games data/office --out adapters/general
    """
    if out is None or not datasets:
        raise LorarecError("name at least one dataset and --out, here or in the recipe")
    refuse_existing(out, overwrite, FolderKind.ADAPTER)
    require_adapters([start_from])
    pairs = _load(datasets, few_shot, config.seed)
    from lorarec.retrieval import Index
    from lorarec.training import train as train_adapter

    if "WORLD_SIZE" in os.environ:  # a launcher's processes each move their own copy to their own device
        backbone = replace(backbone, device="cpu")
    with continued_by(WITH_RESUME):
        train_adapter(
            load_backbone(backbone),
            pairs,
            out,
            config,
            start_from=start_from,
            build_index=lambda dataset, split: Index.build(dataset, histories=split.train),
            tracking=tracking,
            resume=resume,
            overwrite=overwrite,
            progress=True,
        )
    if os.environ.get("RANK", "0") == "0":
        _show(out, as_json)


def _load(folders: list[Path], fraction: float | None, seed: int) -> list[tuple[Dataset, Split]]:
    pairs = [(dataset, load_split(dataset)) for dataset in map(Dataset.load, folders)]
    if fraction is None:
        return pairs
    return [(dataset, few_shot(split, fraction, seed)) for dataset, split in pairs]


def _show(folder: Path, as_json: bool) -> None:
    summary: dict[str, Any] = {"adapter": str(folder), **read_json(folder / "lorarec.json")["training"]}
    if as_json:
        typer.echo(json.dumps(summary))
        return
    table = Table("metric", "value", title=Text(str(folder)))
    for name in ("steps", "cases_per_epoch", "users_set_aside", "loss"):
        table.add_row(name.replace("_", " "), f"{summary[name]:.4g}")
    for name, value in (summary["validation"] or {}).items():
        table.add_row(f"validation {name}", f"{value:.4g}")
    Console().print(table)
