"""The verb `fuse`: a learned last stage over adapters and conventional recommenders."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from lorarec.backbone import BackboneConfig
from lorarec.cli.config_options import config_options
from lorarec.cli.options import (
    AsJson,
    DatasetFolder,
    Overwrite,
    load_backbone,
    named_folders,
    require_adapters,
)
from lorarec.cli.output import print_values
from lorarec.data import Dataset, load_split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, refuse_existing
from lorarec.recommenders import FusionConfig

if TYPE_CHECKING:
    from lorarec.ranking import Fusion
    from lorarec.recommenders import FusionModel, Recommender

#: Columns of the table of weights: the features of a recommender, in the order of `FusionFeatures.names`.
FEATURES = ("score", "score x log history length", "score, new item")


@config_options
def fuse(
    *,
    dataset: DatasetFolder,
    out: Annotated[Path, typer.Option(help="Fusion folder to write.")],
    adapter: Annotated[
        list[str] | None, typer.Option(help="PEFT folder or hub id, or NAME=FOLDER; may be repeated.")
    ] = None,
    recommender: Annotated[
        list[str] | None,
        typer.Option(
            help="Conventional recommender; may be repeated; sasrec, gru4rec, unisrec, sequential-rules, "
            "ease, item-knn, tf-idf and popularity if not given."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option of a recommender, such as sasrec.epochs=30; may be repeated."),
    ] = None,
    config: FusionConfig,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 42,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    backbone: BackboneConfig,
) -> None:
    """Fuse adapters and conventional recommenders: learn how much the scores of each are worth.

    The result ranks with `lorarec recommend --fusion`, `rank`, `explain` and `evaluate`. The weights are fitted on
    validation cases, with a share of the items hidden from all recommenders, so that the weights of new items are
    learned as well. Test cases are not read. Adapters are used as they are; the other recommenders are fitted here.

    Example: lorarec fuse data/shop --adapter shop=adapters/shop --out fusions/shop

    Example: lorarec fuse data/shop --recommender sasrec --recommender tf-idf --set sasrec.epochs=30 --out fusions/shop
    """
    folders = named_folders(adapter or [], "adapter")
    require_adapters(folders.values())
    options = _recommender_options(settings or [])
    refuse_existing(out, overwrite, FolderKind.FUSION)
    data = Dataset.load(dataset)
    split = load_split(data)
    from lorarec.backbone import hide_weights_progress
    from lorarec.ranking import DEFAULT_RECOMMENDERS
    from lorarec.ranking import fuse as fuse_recommenders

    hide_weights_progress()
    recommenders = _recommenders(recommender or list(DEFAULT_RECOMMENDERS), options)
    needs_backbone = folders or any(each.embeds_with_backbone for each in recommenders.values())
    fusion = fuse_recommenders(
        data,
        folders,
        recommenders,
        out,
        backbone=load_backbone(backbone) if needs_backbone else None,
        split=split,
        config=config,
        seed=seed,
        progress=True,
        overwrite=overwrite,
    )
    _show(fusion, out, as_json)


def _recommender_options(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the options of each recommender by name; values are read as YAML, as in a recipe.

    Raises:
        LorarecError: If a text is not NAME.OPTION=VALUE.
    """
    options: dict[str, dict[str, Any]] = {}
    for text in settings:
        name, _, assignment = text.partition(".")
        option, mark, value = assignment.partition("=")
        if not (name and option and mark):
            raise LorarecError(f"--set {text} must be NAME.OPTION=VALUE, as in sasrec.epochs=30")
        try:
            options.setdefault(name, {})[option] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise LorarecError(f"--set {text}: {value} cannot be read as a value") from error
    return options


def _recommenders(names: Sequence[str], options: dict[str, dict[str, Any]]) -> "dict[str, Recommender[Any]]":
    """Return unfitted recommenders.

    Raises:
        LorarecError: If a recommender is named twice, it or an option is unknown, or a value is out of range.
    """
    from lorarec.ranking import fusion_recommender

    for name in names:
        if names.count(name) > 1:
            raise LorarecError(f"--recommender {name} is given more than once: leave out one of them")
    for name in options:
        if name not in names:
            raise LorarecError(f"--set {name}: there is no such recommender: it has {', '.join(names)}")
    made = {}
    for name in names:
        try:
            made[name] = fusion_recommender(name, options.get(name))
        except LorarecError as error:
            raise LorarecError(f"--set {name}: {error}" if name in options else str(error)) from error
    return made


def _show(fusion: "Fusion", out: Path, as_json: bool) -> None:
    """Print what was fitted and the weights of the features of each recommender."""
    stages = {"weights": fusion.model, "weights of the fusion for whole catalogues": fusion.pool_model}
    if as_json:
        weights, pool_weights = (None if model is None else _weights(model) for model in stages.values())
        fit = {"folder": str(out), **fusion.record["fit"], "weights": weights, "pool_weights": pool_weights}
        typer.echo(json.dumps(fit, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    print_values(f"Fusion of {', '.join(fusion.names)}", fusion.record["fit"])
    console = Console()
    for title, model in stages.items():
        if model is None:
            continue
        table = Table("recommender", title=title[0].upper() + title[1:])
        for feature in FEATURES:
            table.add_column(feature, justify="right")
        for name, of_features in _weights(model).items():
            table.add_row(Text(name), *(f"{weight:+.2f}" for weight in of_features.values()))
        console.print(table)
    console.print(f"Fusion written to {out}", markup=False, highlight=False, soft_wrap=True)


def _weights(model: "FusionModel") -> dict[str, dict[str, float]]:
    """Return the weight of each feature of each recommender."""
    features = model.features
    return {
        name: dict(zip(FEATURES, model.weights[features.sources == source].tolist(), strict=True))
        for source, name in enumerate(features.scorers)
    }
