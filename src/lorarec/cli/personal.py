"""The group `lorarec personal`: adapters that a router mixes for each user, and a user's own as a PEFT folder."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from typer.core import TyperGroup

from lorarec.backbone import BackboneConfig
from lorarec.cli.config_options import Only, config_options
from lorarec.cli.messages import Verb
from lorarec.cli.options import (
    WITH_RESUME,
    AsJson,
    DatasetFolder,
    Overwrite,
    Resume,
    continued_by,
    load_backbone,
    require_adapters,
)
from lorarec.data import Dataset, load_split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, read_json, refuse_existing
from lorarec.personal import TITLES, PersonalizationConfig, UserRouterConfig, personal_folder
from lorarec.training import TrackingConfig

if TYPE_CHECKING:
    from lorarec.evaluation import ClickEvaluation, Evaluation
    from lorarec.personal import UserRouterResult

#: The keys of `lorarec.ctr.MODELS`, whose import takes seconds.
CTR_MODELS = ("deepfm", "autoint", "dcnv2", "gru4rec", "caser", "sasrec", "din", "sim")


class _PersonalGroup(TyperGroup):
    """The group, which says how its verb of version 0.1 is called now."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] == "choose" and not ctx.resilient_parsing:  # not while a shell completes the line
            raise LorarecError("`lorarec personal choose` is called `lorarec personal train-router`")
        return super().resolve_command(ctx, args)


personal_app = typer.Typer(
    cls=_PersonalGroup, no_args_is_help=True, help="Train personal adapters or a user router; export a user's adapter."
)


@personal_app.command("train", cls=Verb)
@config_options
def train(
    *,
    dataset: Annotated[Path, typer.Argument(help="Dataset folder; every interaction needs a rating.")],
    out: Annotated[Path, typer.Option(help="Folder to write; OUT.checkpoints holds an unfinished run.")],
    ctr_model: Annotated[
        str,
        typer.Option(
            help=f"Click-through model to train ({', '.join(CTR_MODELS)}), or the folder of a trained one, such as "
            "crm/ of an earlier OUT of this command."
        ),
    ] = "din",
    shared: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare with one LoRA for all users, whose prompts show `similar` (ReLLa) or `recent` (TALLRec) "
            "events; may be given twice."
        ),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    config: PersonalizationConfig,
    tracking: TrackingConfig,
    backbone: BackboneConfig,
) -> None:
    """Train RecLoRA: a router mixes meta-LoRAs for each user and target by a click-through model's representation.

    Ratings become clicks, which are split by global time into 8:1:1. The click-through model is trained on all training
    events, the language model on a sample of them (--samples); validation events decide how the two are blended. The
    test events then give AUC, LogLoss, ACC and ECE.

    OUT holds crm/ (the click-through model, reusable by --ctr-model), personal/ (the router and the meta-LoRAs),
    users.parquet, predictions.parquet, metrics.json, report.md and weights.png.

    Example: lorarec personal train data/ml-1m --ctr-model sim --samples 4096 --shared similar --out personal
    """
    refuse_existing(out, overwrite, FolderKind.PERSONALIZATION)
    _refuse_unknown(ctr_model, CTR_MODELS)
    data = Dataset.load(dataset)
    from lorarec.evaluation import click_table
    from lorarec.personal import describe_test_events, personalize, report_clicks

    reports: list[ClickEvaluation] = []
    with continued_by(WITH_RESUME):
        result = personalize(
            load_backbone(backbone),
            data,
            out,
            config,
            ctr_model=ctr_model,
            shared=shared or (),
            tracking=tracking,
            resume=resume,
            overwrite=overwrite,
            progress=True,
            report=lambda made: reports.append(report_clicks(made)),
        )
    (evaluation,) = reports
    if as_json:
        typer.echo(json.dumps({"folder": str(out), **evaluation.as_dict(), "test": result.record["test"]}))
        return
    console = Console()
    console.print(click_table(evaluation, data.name))
    console.print(describe_test_events(result.record), markup=False, highlight=False)
    console.print(f"Report: {out / 'report.md'}", markup=False, highlight=False, soft_wrap=True)


@personal_app.command("train-router", cls=Verb)
@config_options
def train_router(
    *,
    dataset: DatasetFolder,
    general: Annotated[Path, typer.Argument(help="PEFT folder or hub id of the general adapter.")],
    specific: Annotated[
        Path, typer.Argument(help="PEFT folder or hub id of the specific adapter, trained on the same prompts.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    ctr_model: Annotated[
        str,
        typer.Option(
            help=f"Click-through model that represents users ({', '.join(CTR_MODELS)}), the folder of a trained one, "
            f"such as crm/ of an earlier OUT of this command, or {TITLES}: the titles of their histories, for datasets "
            "without ratings."
        ),
    ] = "din",
    setting: Annotated[Literal["warm", "new-item"], typer.Option(help="Test cases that are ranked.")] = "warm",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of users to test on, drawn at random; all if not given.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    config: UserRouterConfig,
    tracking: TrackingConfig,
    backbone: BackboneConfig,
) -> None:
    """Train a user router: it computes how much of a general and of a specific adapter each user gets.

    The router reads a click-through model's representation of each user's training history, and the history's length.
    It is trained on validation cases; both adapters are unchanged. If it does not help, all users get the best constant
    mixture.

    OUT holds metrics.json, report.md and ndcg.png of all rows, adapter_preference.json and adapter_preference.png,
    constant/ (the constant mixture), crm/ (the click-through model, reusable by --ctr-model), personal/ (the router),
    users.parquet and user_router.json. `lorarec personal export OUT --user ID` reads OUT. If OUT is in a folder of
    adapters, `lorarec serve` serves it.

    Example: lorarec personal train-router data/shop adapters/general adapters/shop --out adapters/by-user
    """
    refuse_existing(out, overwrite, FolderKind.USER_ROUTER)
    _refuse_unknown(ctr_model, (*CTR_MODELS, TITLES))
    data = Dataset.load(dataset)
    require_adapters([general, specific])
    split = load_split(data)
    from lorarec.evaluation import METRICS, evaluation_table, select_settings
    from lorarec.lora import read_adapter
    from lorarec.personal import describe_preference, report_user_mixtures, train_user_router
    from lorarec.ranking import split_warning

    select_settings(data, split, [setting])
    model = load_backbone(backbone)
    for folder in (general, specific):
        if warning := split_warning(read_adapter(folder, model), data, split):
            Console(stderr=True).print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    adapters = {"general": general, "specific": specific}
    reports: list[tuple[Evaluation, dict[str, Any]]] = []

    def report(made: "UserRouterResult") -> None:
        sample: dict[str, Any] = {"limit": limit, "seed": config.seed, "progress": True}
        reports.append(report_user_mixtures(model, data, split, made.folder, adapters, setting, **sample))

    train_user_router(
        model,
        [general, specific],
        data,
        split,
        out,
        config,
        ctr_model=ctr_model,
        tracking=tracking,
        overwrite=overwrite,
        progress=True,
        report=report,
    )
    ((evaluation, preference),) = reports
    if as_json:
        typer.echo(json.dumps({"folder": str(out), **read_json(out / METRICS), "adapter_preference": preference}))
        return
    console = Console()
    console.print(evaluation_table(evaluation, setting))
    console.print(describe_preference(preference), markup=False, highlight=False)
    console.print(f"Report: {out / 'report.md'}", markup=False, highlight=False, soft_wrap=True)


@personal_app.command("export", cls=Verb)
@config_options
def export(
    *,
    folder: Annotated[
        Path, typer.Argument(help="Folder of `lorarec personal train` or `lorarec personal train-router`, or hub id.")
    ],
    user: Annotated[str, typer.Option(help="User id of its dataset.")],
    out: Annotated[Path, typer.Option(help="Adapter folder to write.")],
    backbone: Annotated[
        str | None, typer.Option(help="Language model, if its path has changed since training.")
    ] = None,
    overwrite: Overwrite = False,
    loading: Annotated[BackboneConfig, Only(("dtype", "device", "trust_remote_code"))],
) -> None:
    """Write a user's own adapter as a plain PEFT folder, which PEFT, vLLM and others load.

    Its weights are those that the router gives for the mean representation of the user's latest ten events; a user
    without a history gets the router's mean weights.

    Example: lorarec personal export personal --user 42 --out adapters/user-42
    """
    refuse_existing(out, overwrite, FolderKind.ADAPTER)
    folder = personal_folder(folder)
    from lorarec.personal import export_user, recorded_backbone_id

    model = load_backbone(replace(loading, id=backbone or recorded_backbone_id(folder)))
    routed = export_user(folder, user, out, model, overwrite)
    mean = "" if routed else " (the router's mean mixture, since there is no history)"
    typer.echo(f"Adapter of user {user}{mean} written to {out}")


def _refuse_unknown(ctr_model: str, names: Sequence[str]) -> None:
    if ctr_model not in names and not Path(ctr_model).is_dir():
        known = ", ".join(names)
        raise LorarecError(f"{ctr_model!r} is neither a folder nor a click-through model: choose from {known}")
