"""The verb `evaluate`: adapters and baselines, compared on test cases."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from lorarec.backbone import BackboneConfig
from lorarec.cli.config_options import config_options
from lorarec.cli.evaluate_log import LogConfig, evaluate_log
from lorarec.cli.options import (
    AsJson,
    CorrectionOption,
    Engine,
    Overwrite,
    named_folders,
    open_engine,
    refuse_given,
    require_adapters,
    require_fusion,
)
from lorarec.cli.rankers import NewItemPrior, read_prior
from lorarec.data import Dataset, load_split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, refuse_existing
from lorarec.prompts import Readout
from lorarec.ranking import ServerConfig

if TYPE_CHECKING:
    from lorarec.recommenders import Scorer

#: Options that evaluate a dataset, and have no effect on logged answers.
_FOR_DATASETS = (
    "new_item_prior",
    "setting",
    "candidates",
    "pool",
    "limit",
    "readout",
    "generation",
    "engine",
    *(field.name for field in fields(ServerConfig)),
    "backbone",
    *(field.name for field in fields(BackboneConfig) if field.name != "id"),
)


@config_options
def evaluate(
    *,
    context: typer.Context,
    dataset: Annotated[
        Path | None,
        typer.Argument(
            help="Dataset folder, as `lorarec data import` writes it, or hub:OWNER/NAME; not with --log.",
            show_default=False,
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None, typer.Option(help="PEFT folder or hub id, or NAME=FOLDER; may be repeated.")
    ] = None,
    fusion: Annotated[
        list[str] | None, typer.Option(help="Folder of `lorarec fuse`, or NAME=FOLDER; may be repeated.")
    ] = None,
    new_item_prior: NewItemPrior = None,
    setting: Annotated[
        Literal["warm", "new-item", "both"], typer.Option(help="Test cases; `both` takes all of the split.")
    ] = "both",
    candidates: Annotated[
        Literal["stored", "all"],
        typer.Option(help="Candidate sets of the split, or every item of the catalogue that is not in the history."),
    ] = "stored",
    pool: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of items that an index proposes to models, and to fusions with adapters, with --candidates "
            "all.",
        ),
    ] = 100,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of users to evaluate, drawn at random; all if not given.")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            help="Row that the others are tested against; the best of popularity, item-knn and tf-idf if not given, "
            "or index with --candidates all."
        ),
    ] = None,
    correction: CorrectionOption = "holm",
    readout: Annotated[
        Readout | None,
        typer.Option(help="Readout in place of those that the adapters were trained with."),
    ] = None,
    generation: Annotated[
        Literal["free", "constrained"] | None,
        typer.Option(
            help="Let the model write a list of titles, as the papers do, freely or among the candidates only."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json, report.md and ndcg.png.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample of users and of the intervals.")] = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    answers: LogConfig,
    engine: Engine = "torch",
    server: ServerConfig,
    backbone: BackboneConfig,
) -> None:
    """Compare the backbone, adapters and fusions with popularity, co-occurrence and titles on the same test cases.

    Users and candidates are those of the split stored with the dataset; without one, the default split is drawn. With
    --candidates all, popularity, co-occurrence and titles rank the whole catalogue. Models rank what an index of the
    training part proposes; the row `index` is its own order, and `index+NAME` the order of a model. A fusion without
    adapters ranks the whole catalogue, too; one with adapters is the row `index+NAME` and ranks what its own index
    proposes, the one that `recommend` uses.

    Example: lorarec evaluate data/beauty --adapter general=adapters/general --adapter mixed=adapters/mixed
    --setting warm --out reports/beauty

    Example: lorarec evaluate data/shop --fusion fusions/shop --new-item-prior 0.05

    With --log, the variants of an experiment are compared by what users chose of the answers that a service has logged.

    Example: lorarec evaluate --log answers --db data/shop.db
    """
    if out is None:
        refuse_given(context, ("overwrite",), "without --out")
    if answers.log is not None:
        if dataset is not None or adapter or fusion:
            raise LorarecError("--log compares answers of a service: leave out the dataset, --adapter and --fusion")
        refuse_given(context, _FOR_DATASETS, "with --log, which compares answers of a service")
        evaluate_log(answers, compare, correction, out, seed, overwrite, as_json)
        return
    if dataset is None:
        raise LorarecError("there is nothing to evaluate: give a dataset folder, or --log")
    refuse_given(context, ("window",), "without --log")
    if candidates == "stored":
        refuse_given(context, ("pool",), "without --candidates all, for which an index proposes items")
    console, stderr = Console(), Console(stderr=True)
    named = named_folders(adapter or [], "adapter")
    require_adapters(named.values())
    fusions = named_folders(fusion or [], "fusion")
    for folder in fusions.values():
        require_fusion(folder)
    _refuse_combinations(fusions, new_item_prior, engine)
    prior = read_prior(new_item_prior)
    if out is not None:
        refuse_existing(out, overwrite, FolderKind.EVALUATION)
    data = Dataset.load(dataset)
    split = load_split(data)
    from lorarec.evaluation import evaluate as evaluate_rows
    from lorarec.evaluation import evaluation_table
    from lorarec.ranking import (
        INDEX,
        Fusion,
        TrainedAdapter,
        adapter_scorers,
        fusion_catalogue_scorer,
        pool_scorers,
        split_warning,
    )
    from lorarec.recommenders import SASRecConfig
    from lorarec.retrieval import Index

    with open_engine(engine, backbone, named, server) as (model, started):
        rows = adapter_scorers(
            model, data, split, named, readout=readout, generation=generation, engine=started, progress=True
        )
        used = [row.adapter for row in rows.values() if row.adapter]
        fused_rows: dict[str, Fusion] = {}
        taken = {*rows, INDEX, *(f"{INDEX}+{row}" for row in rows)} if candidates == "all" else {*rows}
        for name, folder in fusions.items():
            fused = Fusion.load(folder, data, model, split)
            orders_pool = candidates == "all" and not fused.scores_catalogue
            if orders_pool and fused.pool_model is None:
                raise LorarecError(f"fusion {folder} cannot order what an index proposes: fuse with --pool above 0")
            row_name = f"{INDEX}+{name}" if orders_pool else name
            if row_name in {*taken, *fused_rows}:
                raise LorarecError(f"the row name {row_name} is taken: use another with --fusion NAME={folder}")
            used += [each.adapter for each in fused.group.recommenders.values() if isinstance(each, TrainedAdapter)]
            fused_rows[row_name] = fused if prior is None else fused.with_new_item_prior(prior)
        for warning in dict.fromkeys(split_warning(each, data, split) for each in used):
            if warning:
                stderr.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
        everything: dict[str, Scorer] = {**rows, **fused_rows}
        if candidates == "all":
            index = Index.build(data, SASRecConfig(), split.train, progress=True)
            whole = {name: fusion_catalogue_scorer(each, pool) for name, each in fused_rows.items()}
            everything, compare = {**pool_scorers(index, rows, pool), **whole}, compare or INDEX
        evaluation = evaluate_rows(
            data,
            everything,
            split=split,
            settings=None if setting == "both" else [setting],
            candidates=candidates,
            compare_with=compare,
            correction=correction,
            limit=limit,
            seed=seed,
            out=out,
            progress=True,
            overwrite=overwrite,
        )
    if as_json:
        typer.echo(json.dumps(evaluation.as_dict(), indent=2, ensure_ascii=False))
        return
    for name in evaluation.settings:
        console.print(evaluation_table(evaluation, name))
    for name, row in rows.items():
        if row.dropped:
            console.print(f"{name}: {row.dropped:,} history items dropped, oldest first, to fit prompts", markup=False)
    if out is not None:
        console.print(f"Report written to {out / 'report.md'}", markup=False, highlight=False, soft_wrap=True)


def _refuse_combinations(fusions: Mapping[str, Path], new_item_prior: str | None, engine: str) -> None:
    """Refuse options that do not go together."""
    if new_item_prior is not None and not fusions:
        raise LorarecError("--new-item-prior is for a fusion: name its folder with --fusion")
    if fusions and engine != "torch":
        raise LorarecError(f"--engine {engine} is for adapters: use --fusion with --engine torch")
