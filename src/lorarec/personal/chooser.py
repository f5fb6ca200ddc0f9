"""Who gets how much of each finished adapter: a router over {general, specific, ...}, trained on validation cases."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from lorarec.adapters import AdapterBank, read_adapter
from lorarec.adapters.prompting import write_template
from lorarec.artefacts import new_folder, refuse_existing, versions, write_json
from lorarec.backbone.load import Backbone
from lorarec.data import Dataset, Split
from lorarec.data.columns import USER
from lorarec.errors import LorarecError, refuse_unknown
from lorarec.folder_kinds import CHOSEN
from lorarec.mixing import CasePrompts, mix
from lorarec.mixing.mix import agreed_settings, made_of
from lorarec.mixing.prompts import sampled
from lorarec.personal.model import PersonalLora
from lorarec.personal.options import TITLES, ChooseOptions
from lorarec.personal.split_users import fit_on_training_part, split_users
from lorarec.personal.tune_chooser import Cases, tune_chooser
from lorarec.personal.users import PERSONAL, REPRESENTATION, USERS, user_weights
from lorarec.prompts import true_places

CONSTANT, CRM, RECORD, VECTORS = "constant", "crm", "choose.json", "titles.parquet"
WEIGHTS = "weights"


@dataclass(frozen=True)
class Chosen:
    """What `choose_by_user` wrote.

    Attributes:
        folder: `personal/` and `users.parquet`, from which `export_user` writes a user's own adapter; `constant/`, the
            PEFT folder of the best constant mixture; `crm/`, or `titles.parquet` where titles were read; `choose.json`.
        users: users.parquet: user_id, events (training history), representation, and weights (K), the mean over layers.
        record: choose.json.
    """

    folder: Path
    users: pl.DataFrame
    record: dict[str, Any]


def choose_by_user(
    backbone: Backbone,
    adapters: Sequence[str | Path],
    dataset: Dataset,
    split: Split,
    out: str | Path,
    *,
    crm: str | Path = "din",
    overwrite: bool = False,
    progress: bool = False,
    report: Callable[[Chosen], object] | None = None,
    **options: Any,
) -> Chosen:
    """Learn from validation cases who gets how much of each finished adapter; goes beyond RecLoRA (arXiv 2408.03533).

    What is known of a user comes from the training part of the split alone (see `split_users`). The router starts at
    the constant mixture with the lowest loss on the cases it is trained on, and only the router is trained, by the
    cross-entropy of the true candidate over its candidate set. It is kept as it was after the epoch with the lowest
    loss on the held-out cases; where no epoch lowers it, every user has the constant mixture. Test targets are not
    read.

    Args:
        adapters: PEFT folders of this backbone, two or more, trained on prompts of one kind.
        crm: the name of a conventional recommender (`lorarec.conventional.MODELS`), the folder of one that was trained
            on the same training part, such as crm/ of an earlier `out`, or `titles`, which needs no ratings.
        overwrite: replace what is at `out`.
        progress: show progress bars.
        report: is called with what was made before the folder is put in its place, so that the files that it writes
            into `Chosen.folder` are there with all others or not at all.
        options: fields of `ChooseOptions`.

    Raises:
        LorarecError: bad options, adapters that are unusable or were trained on different prompts, a dataset without
            ratings or validation cases, `out` exists, or a loss that is not finite.
    """
    refuse_unknown(ChooseOptions, options)
    chosen = ChooseOptions(**options)
    out = Path(out)
    refuse_existing(out, overwrite, CHOSEN)
    if len(adapters) < 2:
        raise LorarecError(f"a mixture needs two or more adapters, got {len(adapters)}")
    read = [read_adapter(folder, backbone) for folder in adapters]
    bank = AdapterBank.stack(read)
    bank.require(chosen.combine)
    prompts = CasePrompts(backbone, adapters)
    drawn = sampled(split.valid, chosen.cases, chosen.seed)
    held = round(chosen.held_out * len(drawn))
    if not 0 < held < len(drawn):
        raise LorarecError(f"{dataset.name}: {len(drawn)} validation cases are too few: some are held out of training")
    recommender = None
    if str(crm) != TITLES:
        how = (chosen.positive_from, chosen.stars, chosen.seed, progress)
        recommender = fit_on_training_part(crm, dataset, split, *how)
    known = split_users(backbone, dataset, split, recommender)
    users = known.table
    held_out, fitted = (_cases(prompts, dataset, split, part, users) for part in (drawn[:held], drawn[held:]))
    record: dict[str, Any] = {
        **made_of(read),
        "datasets": [{"name": dataset.name, "fingerprint": dataset.fingerprint, "split": split.cases}],
        "chooser": asdict(chosen) | {"crm": str(crm)},
    }
    torch.manual_seed(chosen.seed)
    template = agreed_settings(read).get("template")
    settings: dict[str, Any] = {
        "combine": chosen.combine,
        "trainable": False,
        "record": record,
        "template": template,
    }
    with new_folder(out, overwrite, CHOSEN) as folder:
        with PersonalLora(backbone, bank, fitted.representation.shape[1], **settings) as personal:
            trace = tune_chooser(personal, fitted, held_out, prompts.builder, chosen, progress)
            weights = user_weights(personal, users)
            personal.router.mean.copy_(torch.from_numpy(weights.mean(0)))
            personal.save(folder / PERSONAL)
        users = users.with_columns(pl.Series(WEIGHTS, weights.mean(1)))
        users.write_parquet(folder / USERS)
        given = {"method": "fixed", "combine": chosen.combine, "weights": trace["constant"]}
        mix(backbone, adapters, out=folder / CONSTANT, **given)
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
            report(Chosen(folder, users, record))
    return Chosen(out, users, record)


def _cases(prompts: CasePrompts, dataset: Dataset, split: Split, cases: pl.DataFrame, users: pl.DataFrame) -> Cases:
    told = cases.join(users, on=USER, how="left", maintain_order="left")[REPRESENTATION].to_numpy()
    return Cases(prompts.examples(dataset, split, cases), true_places(cases), torch.from_numpy(told.copy()))
