"""`lorarec personalize`: adapters that a router mixes for every user, and a user's own as a plain PEFT folder."""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

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
from lorarec.data import Dataset, load_split
from lorarec.errors import LorarecError
from lorarec.io import ADAPTER, CHOSEN, PERSONALIZED, read_json, refuse_existing
from lorarec.personal import TITLES, PersonalizationConfig, Retrieval, UserRouterConfig

if TYPE_CHECKING:
    from lorarec.evaluation import ClickEvaluation, Evaluation
    from lorarec.personal import UserRouterResult

#: The keys of `lorarec.ctr.MODELS`, whose import takes seconds.
RECOMMENDERS = ("deepfm", "autoint", "dcnv2", "gru4rec", "caser", "sasrec", "din", "sim")
DEFAULT, CHOICE = PersonalizationConfig(), UserRouterConfig()

personalize_app = typer.Typer(help="Train adapters that are mixed for every user; export a user's own.")


@personalize_app.callback()
def personalize() -> None:
    """Train adapters that are mixed for every user; export a user's own."""


@personalize_app.command("train")
def train(
    context: typer.Context,
    dataset: Annotated[Path, typer.Argument(help="Dataset folder; every interaction needs a rating.")],
    out: Annotated[Path, typer.Option(help="The folder to make; OUT.checkpoints keeps the work in progress.")],
    crm: Annotated[
        str,
        typer.Option(
            help=f"Conventional recommender to train ({', '.join(RECOMMENDERS)}), or the folder of a trained one, such "
            "as crm/ of an earlier OUT."
        ),
    ] = "din",
    samples: Annotated[int, typer.Option(help="Training events for the language model.")] = DEFAULT.samples,
    test_events: Annotated[
        int | None, typer.Option(help="Predict so many test events, drawn once for all seeds; all if unset.")
    ] = DEFAULT.test_events,
    shared: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare with one LoRA for all users: `similar` history (ReLLa) or `recent` (TALLRec); "
            "may be given twice."
        ),
    ] = None,
    backbone: BackboneId = EMBEDDED,
    dtype: Dtype = "auto",
    device: Device = None,
    quantization: Quantization = None,
    trust_remote_code: TrustRemoteCode = False,
    positive_from: Annotated[float, typer.Option(help="Ratings from here count as clicks.")] = DEFAULT.positive_from,
    stars: Annotated[float, typer.Option(help="The highest rating of the scale.")] = DEFAULT.stars,
    ctr_max_history: Annotated[
        int, typer.Option(help="Events of the history that the conventional recommender reads.")
    ] = DEFAULT.ctr_max_history,
    ctr_retrieval: Annotated[
        Retrieval, typer.Option(help="Which those are of a longer history: most similar to the target, or most recent.")
    ] = DEFAULT.ctr_retrieval,
    max_history: Annotated[int, typer.Option(help="Events of the history in a prompt.")] = DEFAULT.max_history,
    retrieval: Annotated[
        Retrieval, typer.Option(help="Which those are: most similar to the target, or most recent.")
    ] = DEFAULT.retrieval,
    num_meta_loras: Annotated[int, typer.Option(help="Number of meta-LoRAs that are mixed.")] = DEFAULT.num_meta_loras,
    r: Annotated[int, typer.Option(help="Rank of each.")] = DEFAULT.r,
    lora_alpha: Annotated[float, typer.Option(help="Their output is scaled by alpha / rank.")] = DEFAULT.lora_alpha,
    target_modules: Annotated[
        str, typer.Option(help="Comma-separated names of adapted layers.")
    ] = DEFAULT.target_modules,
    combine: Annotated[
        Literal["factors", "deltas"], typer.Option(help="Sum A and B (rank r) or the products B A.")
    ] = "factors",
    temperature: Annotated[
        float, typer.Option(help="Of the router: the higher, the more alike users are.")
    ] = DEFAULT.temperature,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = DEFAULT.learning_rate,
    epochs: Annotated[int, typer.Option(help="Passes over the samples.")] = DEFAULT.epochs,
    batch_size: Annotated[int, typer.Option(help="Samples per optimiser step.")] = DEFAULT.batch_size,
    token_budget: Annotated[
        int, typer.Option(help="Tokens per forward pass: memory against speed.")
    ] = DEFAULT.token_budget,
    max_tokens: Annotated[int, typer.Option(help="Longest prompt; oldest history drops first.")] = DEFAULT.max_tokens,
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = DEFAULT.seed,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run, if there is one.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Train RecLoRA: a router reads a conventional recommender and mixes meta-LoRAs for every user and target.

    Ratings become clicks, cut by global time into 8:1:1. The conventional recommender learns from all training events,
    the language model from a few of them (--samples), and validation events say how much each counts where both answer
    together. The test events then give AUC, LogLoss, ACC and ECE.

    Example: lorarec personalize train data/ml-1m --crm sim --samples 4096 --shared similar --out personal

    OUT holds crm/ (reusable by --crm), personal/, users.parquet, predictions.parquet, metrics.json, report.md and
    weights.png.
    """
    names = {field.name for field in fields(PersonalizationConfig)}
    options: dict[str, Any] = {name: value for name, value in context.params.items() if name in names}
    PersonalizationConfig(**options)  # bad options are refused before anything heavy is loaded
    refuse_existing(out, overwrite, PERSONALIZED)
    _refuse_unknown(crm, RECOMMENDERS)
    data = Dataset.load(dataset)
    from lorarec.evaluation import (
        click_table,
    )
    from lorarec.personal import describe_test_events, report_clicks
    from lorarec.personal import personalize as train_personal

    model = load_backbone(backbone, dtype, device, quantization, trust_remote_code)
    reports: list[ClickEvaluation] = []
    result = train_personal(
        model,
        data,
        out,
        crm=crm,
        shared=shared or (),
        resume=resume,
        overwrite=overwrite,
        progress=True,
        report=lambda made: reports.append(report_clicks(made)),
        **options,
    )
    (evaluation,) = reports
    if as_json:
        typer.echo(json.dumps({"folder": str(out), **evaluation.as_dict(), "test": result.record["test"]}))
        return
    console = Console()
    console.print(click_table(evaluation, data.name))
    console.print(describe_test_events(result.record))
    console.print(f"Report: {out / 'report.md'}")


@personalize_app.command("choose")
def choose(
    context: typer.Context,
    dataset: Annotated[Path, typer.Argument(help="Dataset folder; its stored split says who is tested on what.")],
    general: Annotated[Path, typer.Argument(help="PEFT folder of the general adapter.")],
    specific: Annotated[Path, typer.Argument(help="PEFT folder of the specific one, trained on the same prompts.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    crm: Annotated[
        str,
        typer.Option(
            help=f"Conventional recommender that tells users apart ({', '.join(RECOMMENDERS)}), the folder of a "
            f"trained one, such as crm/ of an earlier OUT, or {TITLES}: the titles of their histories, where "
            "there are no ratings."
        ),
    ] = "din",
    setting: Annotated[Literal["warm", "new-item"], typer.Option(help="Whose test cases are ranked.")] = "warm",
    limit: Annotated[int | None, typer.Option(min=1, help="Test a random sample of so many users.")] = None,
    cases: Annotated[int, typer.Option(help="Validation cases to learn from.")] = CHOICE.cases,
    held_out: Annotated[
        float, typer.Option(help="Share of them that decides when to stop, or that all users are treated alike.")
    ] = CHOICE.held_out,
    epochs: Annotated[int, typer.Option(help="At most so many passes over the others.")] = CHOICE.epochs,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of the router.")] = CHOICE.learning_rate,
    combine: Annotated[
        Literal["factors", "deltas"], typer.Option(help="Sum A and B (rank r) or the products B A.")
    ] = "factors",
    backbone: BackboneId = EMBEDDED,
    dtype: Dtype = "auto",
    device: Device = None,
    quantization: Quantization = None,
    trust_remote_code: TrustRemoteCode = False,
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = CHOICE.seed,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Learn who gets how much of a general and a specific adapter, and tell who leans on which.

    A router reads what a conventional recommender makes of each user's training history, and its length. It learns from
    validation cases; both adapters stay as they are. Where it does not help, all users get the best constant mixture.

    Example: lorarec personalize choose data/action demo/general demo/specific --out chosen

    OUT holds metrics.json, report.md and ndcg.png of all rows, adapter_preference.json and adapter_preference.png,
    constant/ (the constant mixture), crm/ (reusable by --crm), choose.json, and what `lorarec personalize export OUT
    --user ID` reads. Put into a folder of adapters, OUT is served by `lorarec serve`.
    """
    names = {field.name for field in fields(UserRouterConfig)}
    options = {name: value for name, value in context.params.items() if name in names}
    UserRouterConfig(**options)  # bad options are refused before anything heavy is loaded
    refuse_existing(out, overwrite, CHOSEN)
    _refuse_unknown(crm, (*RECOMMENDERS, TITLES))
    data = Dataset.load(dataset)
    require_adapters([general, specific])
    split = load_split(data)
    from lorarec.evaluation import METRICS, evaluation_table, select_settings, split_warning
    from lorarec.lora import read_adapter
    from lorarec.personal import describe_preference, report_user_mixtures, train_user_router

    select_settings(data, split, [setting])
    model = load_backbone(backbone, dtype, device, quantization, trust_remote_code)
    for folder in (general, specific):
        if warning := split_warning(read_adapter(folder, model), data, split):
            Console(stderr=True).print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    adapters = {"general": general, "specific": specific}
    reports: list[tuple[Evaluation, dict[str, Any]]] = []

    def report(made: "UserRouterResult") -> None:
        sample: dict[str, Any] = {"limit": limit, "seed": seed, "progress": True}
        reports.append(report_user_mixtures(model, data, split, made.folder, adapters, setting, **sample))

    how: dict[str, Any] = {"crm": crm, "overwrite": overwrite, "progress": True, "report": report}
    train_user_router(model, [general, specific], data, split, out, **how, **options)
    ((evaluation, preference),) = reports
    if as_json:
        typer.echo(json.dumps({"folder": str(out), **read_json(out / METRICS), "adapter_preference": preference}))
        return
    console = Console()
    console.print(evaluation_table(evaluation, setting))
    console.print(describe_preference(preference))
    console.print(f"Report: {out / 'report.md'}")


@personalize_app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(help="What `lorarec personalize train` wrote.")],
    user: Annotated[str, typer.Option(help="A user id of its dataset.")],
    out: Annotated[Path, typer.Option(help="The adapter folder to write.")],
    backbone: Annotated[
        str | None, typer.Option(help="Where its backbone is now; where it was in training if unset.")
    ] = None,
    dtype: Dtype = "auto",
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write a user's own adapter as a plain PEFT folder, which PEFT, vLLM and others load.

    Its mixture is the one that the router chooses for the mean of what the conventional recommender makes of the user's
    latest ten events; a user without a history gets the router's mean mixture.

    Example: lorarec personalize export personal --user 42 --out adapters/user-42
    """
    refuse_existing(out, overwrite, ADAPTER)
    if not folder.is_dir():
        raise LorarecError(f"{folder} does not exist: give what `lorarec personalize train` wrote")
    from lorarec.personal import export_user, trained_with

    model = load_backbone(backbone or trained_with(folder), dtype, device, trust_remote_code=trust_remote_code)
    routed = export_user(folder, user, out, model, overwrite)
    mean = "" if routed else " (no history to choose by, so it is the router's mean mixture)"
    typer.echo(f"Adapter of user {user}{mean} written to {out}")


def _refuse_unknown(crm: str, names: Sequence[str]) -> None:
    if crm not in names and not Path(crm).is_dir():
        raise LorarecError(f"{crm} is neither a folder nor a conventional recommender: choose from {', '.join(names)}")
