"""The verb `train`."""

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lorarec.cli.options import (
    EMBEDDED,
    BackboneId,
    Device,
    Dtype,
    Quantization,
    TrustRemoteCode,
    load_backbone,
    require_adapters,
)
from lorarec.data import Dataset, Split, few_shot, load_split
from lorarec.errors import LorarecError
from lorarec.io import ADAPTER, read_json, refuse_existing
from lorarec.options import build_options
from lorarec.prompts import Readout
from lorarec.training import Balance, Loss, NegativeSampling, Precision, TrainingConfig, read_recipe

#: What may be said besides the fields of `TrainingConfig`, and what holds where nobody says anything.
RUN: dict[str, Any] = {
    "datasets": None,
    "backbone": EMBEDDED,
    "dtype": "auto",
    "device": None,
    "quantization": None,
    "out": None,
    "from": None,
    "few_shot": None,
}
DEFAULT = TrainingConfig()


def train(
    context: typer.Context,
    datasets: Annotated[
        list[Path] | None, typer.Argument(help="Dataset folders: several make a general adapter, one a specific one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The adapter folder to write.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A YAML file of options; those given here win over it.")] = None,
    backbone: BackboneId = EMBEDDED,
    dtype: Dtype = "auto",
    device: Device = None,
    quantization: Quantization = None,
    trust_remote_code: TrustRemoteCode = False,
    start_from: Annotated[
        Path | None, typer.Option("--from", help="An adapter to fine-tune further; its rank and alpha stand.")
    ] = None,
    few_shot: Annotated[float | None, typer.Option(help="Train on this fraction of the users.")] = None,
    readout: Annotated[Readout, typer.Option(help="Score by yes against no, or by the title.")] = DEFAULT.readout,
    loss: Annotated[
        Loss, typer.Option(help="Over the candidate set, on each candidate's yes or no, or on the title's tokens.")
    ] = DEFAULT.loss,
    template: Annotated[Path | None, typer.Option(help="A Jinja2 prompt in place of the bundled one.")] = None,
    r: Annotated[int, typer.Option(help="Rank of the adapter's matrices.")] = DEFAULT.r,
    lora_alpha: Annotated[float, typer.Option(help="Scale of the output, times 1 / r.")] = DEFAULT.lora_alpha,
    lora_dropout: Annotated[float, typer.Option(help="Dropout of the adapter's inputs.")] = DEFAULT.lora_dropout,
    target_modules: Annotated[str, typer.Option(help="`all-linear` or layer names.")] = DEFAULT.target_modules,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = DEFAULT.learning_rate,
    warmup_ratio: Annotated[float, typer.Option(help="Share of steps that warm up.")] = DEFAULT.warmup_ratio,
    weight_decay: Annotated[float, typer.Option(help="Weight decay of AdamW.")] = DEFAULT.weight_decay,
    epochs: Annotated[int, typer.Option(help="Passes over the sampled cases.")] = DEFAULT.epochs,
    batch_size: Annotated[int, typer.Option(help="Cases per optimiser step.")] = DEFAULT.batch_size,
    token_budget: Annotated[
        int, typer.Option(help="Tokens per forward pass: memory against speed.")
    ] = DEFAULT.token_budget,
    negatives: Annotated[int, typer.Option(help="Other candidates of a training case.")] = DEFAULT.negatives,
    negative_sampling: Annotated[
        NegativeSampling, typer.Option(help="Draw them uniformly, or by popularity so that it tells nothing.")
    ] = DEFAULT.negative_sampling,
    temperature: Annotated[float, typer.Option(help="The listwise loss divides scores by it.")] = DEFAULT.temperature,
    prefixes: Annotated[int | None, typer.Option(help="Cases per user and pass over a dataset; all if unset.")] = None,
    samples: Annotated[int | None, typer.Option(help="Cases per epoch over all datasets; all if unset.")] = None,
    balance: Annotated[Balance, typer.Option(help="Share of each dataset in an epoch.")] = DEFAULT.balance,
    evidence: Annotated[
        bool, typer.Option(help="Tell how often others chose a candidate with the history; the papers do not.")
    ] = DEFAULT.evidence,
    new_items: Annotated[
        float, typer.Option(help="Share of candidates that evidence calls new, so that new items are met.")
    ] = DEFAULT.new_items,
    new_targets: Annotated[
        float | None, typer.Option(help="The same of true items: the more, the more new items are worth.")
    ] = None,
    max_history: Annotated[int, typer.Option(help="Latest items of a history shown.")] = DEFAULT.max_history,
    max_tokens: Annotated[int, typer.Option(help="Longest prompt; oldest items drop first.")] = DEFAULT.max_tokens,
    max_title_tokens: Annotated[int, typer.Option(help="Titles are cut to this.")] = DEFAULT.max_title_tokens,
    eval_users: Annotated[int, typer.Option(help="Validation cases; 0 validates nothing.")] = DEFAULT.eval_users,
    eval_steps: Annotated[
        int | None, typer.Option(help="Steps between evaluations and checkpoints; half an epoch if unset.")
    ] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many evaluations without a better one.")] = None,
    precision: Annotated[Precision, typer.Option(help="bf16 where the device has it, by default.")] = DEFAULT.precision,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Recompute activations to save memory.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = DEFAULT.seed,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint, if there is one.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Train a LoRA adapter on one dataset or several.

    Example: lorarec train data/games data/office --out adapters/general
    """
    known = set(RUN) | {field.name for field in fields(TrainingConfig)}
    chosen = RUN | (read_recipe(recipe, known) if recipe else {}) | _given(context, known)
    run = {name: chosen.pop(name) for name in RUN}
    options = build_options(TrainingConfig, chosen)  # bad options are refused before anything heavy is loaded
    if not run["out"] or not run["datasets"]:
        raise LorarecError("name at least one dataset and --out, here or in the recipe")
    refuse_existing(run["out"], overwrite, ADAPTER)
    require_adapters([run["from"]] if run["from"] else [])
    pairs = _load(run["datasets"], run["few_shot"], options.seed)
    from lorarec.training import train as train_adapter

    # Under a launcher every process moves its own copy to its own device.
    device = "cpu" if "WORLD_SIZE" in os.environ else run["device"]
    folder = train_adapter(
        load_backbone(run["backbone"], run["dtype"], device, run["quantization"], trust_remote_code),
        pairs,
        run["out"],
        start_from=run["from"],
        resume=resume,
        overwrite=overwrite,
        progress=True,
        **chosen,
    )
    if os.environ.get("RANK", "0") == "0":
        _show(folder, as_json)


def _given(context: typer.Context, known: set[str]) -> dict[str, Any]:
    """The options written on the command line, by their names in recipes."""
    names = {"start_from": "from"}
    given = {
        names.get(name, name): value
        for name, value in context.params.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    return {name: value for name, value in given.items() if name in known}


def _load(folders: Any, fraction: float | None, seed: int) -> list[tuple[Dataset, Split]]:
    folders = [folders] if isinstance(folders, str | Path) else folders
    pairs = [(dataset, load_split(dataset)) for dataset in map(Dataset.load, folders)]
    if fraction is None:
        return pairs
    return [(dataset, few_shot(split, fraction, seed)) for dataset, split in pairs]


def _show(folder: Path, as_json: bool) -> None:
    figures = {"adapter": str(folder), **read_json(folder / "lorarec.json")["training"]}
    if as_json:
        typer.echo(json.dumps(figures))
        return
    table = Table("figure", "value", title=str(folder))
    for name in ("steps", "cases_per_epoch", "users_set_aside", "loss"):
        table.add_row(name.replace("_", " "), f"{figures[name]:.4g}")
    for name, value in (figures["validation"] or {}).items():
        table.add_row(f"validation {name}", f"{value:.4g}")
    Console().print(table)
