"""Who gets how much of each finished adapter: a router over {general, specific, ...}, trained on validation cases."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from lorarec.backbone import Backbone
from lorarec.data import USER, Dataset, Split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, new_folder, refuse_existing, versions, write_json
from lorarec.lora import (
    AdapterBank,
    MixingPrompts,
    mix,
    read_adapter,
    sample_cases,
    shared_prompt_settings,
    sources_of,
    write_template,
)
from lorarec.options import build_options
from lorarec.personal.config import TITLES, UserRouterConfig
from lorarec.personal.model import PersonalLora
from lorarec.personal.router_tuning import RouterCases, tune_router
from lorarec.personal.user_adapters import PERSONAL, REPRESENTATION, USERS, user_weights
from lorarec.personal.user_features import fit_on_training_part, user_features
from lorarec.prompts import true_places

CONSTANT, CRM, RECORD, VECTORS = "constant", "crm", "choose.json", "titles.parquet"
WEIGHTS = "weights"


@dataclass(frozen=True)
class UserRouterResult:
    """What `train_user_router` wrote.

    Attributes:
        folder: `personal/` and `users.parquet`, from which `export_user` writes a user's own adapter; `constant/`, the
            PEFT folder of the best constant mixture; `crm/`, or `titles.parquet` where titles were read; `choose.json`.
        users: users.parquet: user_id, events (training history), representation, and weights (K), the mean over layers.
        record: choose.json.
    """

    folder: Path
    users: pl.DataFrame
    record: dict[str, Any]


def train_user_router(
    backbone: Backbone,
    adapters: Sequence[str | Path],
    dataset: Dataset,
    split: Split,
    out: str | Path,
    *,
    crm: str | Path = "din",
    overwrite: bool = False,
    progress: bool = False,
    report: Callable[[UserRouterResult], object] | None = None,
    **options: Any,
) -> UserRouterResult:
    """Learn from validation cases who gets how much of each finished adapter; goes beyond RecLoRA (arXiv 2408.03533).

    What is known of a user comes from the training part of the split alone (see `user_features`). The router starts at
    the constant mixture with the lowest loss on the cases it is trained on, and only the router is trained, by the
    cross-entropy of the true candidate over its candidate set. It is kept as it was after the epoch with the lowest
    loss on the held-out cases; where no epoch lowers it, every user has the constant mixture. Test targets are not
    read.

    Args:
        adapters: PEFT folders of this backbone, two or more, trained on prompts of one kind.
        crm: the name of a conventional recommender (`lorarec.ctr.MODELS`), the folder of one that was trained
            on the same training part, such as crm/ of an earlier `out`, or `titles`, which needs no ratings.
        overwrite: replace what is at `out`.
        progress: show progress bars.
        report: is called with what was made before the folder is put in its place, so that the files that it writes
            into `UserRouterResult.folder` are there with all others or not at all.
        options: fields of `UserRouterConfig`.

    Raises:
        LorarecError: bad options, adapters that are unusable or were trained on different prompts, a dataset without
            ratings or validation cases, `out` exists, or a loss that is not finite.
    """
    chosen = build_options(UserRouterConfig, options)
    out = Path(out)
    refuse_existing(out, overwrite, FolderKind.USER_ROUTER)
    if len(adapters) < 2:
        raise LorarecError(f"a mixture needs two or more adapters, got {len(adapters)}")
    read = [read_adapter(folder, backbone) for folder in adapters]
    bank = AdapterBank.stack(read)
    bank.require(chosen.combine)
    prompts = MixingPrompts(backbone, adapters)
    drawn = sample_cases(split.valid, chosen.cases, chosen.seed)
    held = round(chosen.held_out * len(drawn))
    if not 0 < held < len(drawn):
        raise LorarecError(f"{dataset.name}: {len(drawn)} validation cases are too few: some are held out of training")
    recommender = None
    if str(crm) != TITLES:
        how = (chosen.positive_from, chosen.stars, chosen.seed, progress)
        recommender = fit_on_training_part(crm, dataset, split, *how)
    known = user_features(backbone, dataset, split, recommender)
    users = known.table
    held_out, fitted = (_cases(prompts, dataset, split, part, users) for part in (drawn[:held], drawn[held:]))
    record: dict[str, Any] = {
        **sources_of(read),
        "datasets": [{"name": dataset.name, "fingerprint": dataset.fingerprint, "split": split.cases}],
        "chooser": asdict(chosen) | {"crm": str(crm)},
    }
    torch.manual_seed(chosen.seed)
    template = shared_prompt_settings(read).get("template")
    settings: dict[str, Any] = {
        "combine": chosen.combine,
        "trainable": False,
        "record": record,
        "template": template,
    }
    with new_folder(out, overwrite, FolderKind.USER_ROUTER) as folder:
        with PersonalLora(backbone, bank, fitted.representation.shape[1], **settings) as personal:
            trace = tune_router(personal, fitted, held_out, prompts.builder, chosen, progress)
            weights = user_weights(personal, users)
            personal.router.mean.copy_(torch.from_numpy(weights.mean(0)))
            personal.save(folder / PERSONAL)
        users = users.with_columns(pl.Series(WEIGHTS, weights.mean(1)))
        users.write_parquet(folder / USERS)
        mix(backbone, read, folder / CONSTANT, method="fixed", combine=chosen.combine, weights=trace["constant"])
        if recommender is not None:
            recommender.save(folder / CRM)
        if known.vectors is not None:
            known.vectors.write_parquet(folder / VECTORS)
        record |= {
            "backbone": {"id": backbone.id, "fingerprint": backbone.fingerprint},
            **trace,
            "standard": known.standard.as_dict(),
            "versions": versions(),
        }
        write_json(folder / RECORD, record)
        write_template(folder, template)
        if report is not None:
            report(UserRouterResult(folder, users, record))
    return UserRouterResult(out, users, record)


def _cases(
    prompts: MixingPrompts, dataset: Dataset, split: Split, cases: pl.DataFrame, users: pl.DataFrame
) -> RouterCases:
    told = cases.join(users, on=USER, how="left", maintain_order="left")[REPRESENTATION].to_numpy()
    return RouterCases(prompts.examples(dataset, split, cases), true_places(cases), torch.from_numpy(told.copy()))
