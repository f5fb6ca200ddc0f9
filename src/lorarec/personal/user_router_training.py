"""Training of a router that weights finished adapters for each user, on validation cases."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from lorarec.backbone import Backbone
from lorarec.data import USER, Dataset, Split
from lorarec.errors import LorarecError
from lorarec.evaluation import METRIC_NAMES, METRICS
from lorarec.io import FolderKind, JsonObject, new_folder, read_json, refuse_existing, versions, write_json
from lorarec.lora import (
    AdapterBank,
    AdapterLike,
    MixingPrompts,
    mix,
    mixture_record,
    read_adapter,
    sample_cases,
    write_template,
)
from lorarec.personal.config import TITLES, UserRouterConfig
from lorarec.personal.model import PersonalLora
from lorarec.personal.personal_source import PERSONAL
from lorarec.personal.router_tuning import RouterCases, tune_router
from lorarec.personal.user_adapters import REPRESENTATION, USERS, user_weights
from lorarec.personal.user_features import fit_on_training_part, user_features
from lorarec.personal.user_router import CRM, RECORD, VECTORS
from lorarec.prompts import true_places
from lorarec.training import TrackingConfig, shown_options, tracked_run

CONSTANT = "constant"
WEIGHTS = "weights"


@dataclass(frozen=True)
class UserRouterResult:
    """The result of `train_user_router`: a folder and its contents.

    Attributes:
        folder: Path of the folder. It has `personal/` and `users.parquet`, from which `export_user` writes a user's own
            adapter; `constant/`, the PEFT folder of the best constant mixture; `crm/`, the click-through model, or
            `titles.parquet`; and `user_router.json`.
        users: Contents of users.parquet: user_id, events (length of the training history), representation, and weights
            (K), the mean over layers.
        record: Contents of user_router.json.
    """

    folder: Path
    users: pl.DataFrame
    record: JsonObject


def train_user_router(
    backbone: Backbone,
    adapters: Sequence[AdapterLike],
    dataset: Dataset,
    split: Split,
    out: str | Path,
    config: UserRouterConfig | None = None,
    *,
    ctr_model: str | Path = "din",
    tracking: TrackingConfig | None = None,
    overwrite: bool = False,
    progress: bool = False,
    report: Callable[[UserRouterResult], object] | None = None,
) -> UserRouterResult:
    """Train a user router, which weights finished adapters for each user; goes beyond RecLoRA (arXiv 2408.03533).

    Users are represented by their histories in the training part of the split alone (see `user_features`). The router
    is initialized to the constant mixture with the lowest loss on its training cases. Only the router is trained, by
    the cross-entropy of the target item over its candidate set, on validation cases. The weights of the epoch with
    the lowest loss on the held-out cases are restored; if no epoch lowers that loss, every user gets the constant
    mixture. Test targets are not read.

    Args:
        backbone: Backbone of the adapters.
        adapters: Two or more adapters, or paths of their folders, trained on prompts of one kind.
        dataset: Dataset of the users.
        split: Split of the dataset.
        out: Path of the folder to write.
        config: Options; the defaults of `UserRouterConfig` if None.
        ctr_model: Name of a click-through model to fit (a key of `lorarec.ctr.MODELS`), path of the folder of one that
            was trained on the same training part, such as `crm/` of an earlier `out`, or `titles`, which needs no
            ratings.
        tracking: Trackers that get the losses of each epoch, and at the end the mean weights, the metrics and the
            pictures that `report` wrote; the defaults of `TrackingConfig` if None.
        overwrite: Replace a folder of this kind at `out`.
        progress: Show progress bars on standard error.
        report: Function that is called with the result before the folder is renamed to `out`; files that it writes into
            `UserRouterResult.folder` are there with all others or not at all.

    Raises:
        LorarecError: If adapters are unusable or were trained on different prompts, the dataset has no ratings or no
            validation cases, `out` exists, a loss is not finite, or a tracker cannot start the run.

    Examples:
        >>> from lorarec import Backbone, Dataset, UserRouterConfig, load_split, train_user_router
        >>> backbone, shop = Backbone.from_pretrained("embedded"), Dataset.load("data/shop")
        >>> config = UserRouterConfig(cases=6, epochs=1)
        >>> pair = ["adapters/general", "adapters/shop"]
        >>> trained = train_user_router(backbone, pair, shop, load_split(shop), "router", config, ctr_model="titles")
        >>> trained.users.columns
        ['user_id', 'events', 'representation', 'weights']
    """
    config = config or UserRouterConfig()
    out = Path(out)
    refuse_existing(out, overwrite, FolderKind.USER_ROUTER)
    if len(adapters) < 2:
        raise LorarecError(f"a mixture needs two or more adapters, got {len(adapters)}")
    read = [read_adapter(adapter, backbone) for adapter in adapters]
    bank = AdapterBank.stack(read)
    bank.require(config.combine)
    prompts = MixingPrompts(backbone, read)
    drawn = _draw_cases(dataset, split, config)
    fitted_model = None
    if str(ctr_model) != TITLES:
        fitted_model = fit_on_training_part(
            ctr_model, dataset, split, config.positive_from, config.stars, config.seed, progress
        )
    features = user_features(backbone, dataset, split, fitted_model)
    users = features.table
    held_out, fitted = (_cases(prompts, dataset, split, part, users) for part in drawn)
    adapter_record = replace(
        mixture_record(read),
        backbone_id=backbone.id,
        backbone_fingerprint=backbone.fingerprint,
        datasets=({"name": dataset.name, "fingerprint": dataset.fingerprint, "split": split.cases},),
        details={"user_router": asdict(config) | {"ctr_model": str(ctr_model)}},
    )
    torch.manual_seed(config.seed)
    input_size = fitted.representation.shape[1]
    shown = shown_options(adapter_record) | asdict(config)
    shown |= {"ctr_model": str(ctr_model), "adapters": ", ".join(str(adapter.source) for adapter in read)}
    with (
        new_folder(out, overwrite, FolderKind.USER_ROUTER) as folder,
        tracked_run(tracking or TrackingConfig(), out.name, folder, shown) as run,
    ):
        with PersonalLora(
            backbone, bank, input_size, combine=config.combine, trainable=False, record=adapter_record
        ) as personal:
            trace = tune_router(personal, fitted, held_out, prompts.builder, config, progress, run)
            weights = user_weights(personal, users)
            personal.router.mean.copy_(torch.from_numpy(weights.mean(0)))
            personal.save(folder / PERSONAL)
        users = users.with_columns(pl.Series(WEIGHTS, weights.mean(1)))
        users.write_parquet(folder / USERS)
        mix(backbone, read, folder / CONSTANT, method="fixed", combine=config.combine, weights=trace["constant"])
        if fitted_model is not None:
            fitted_model.save(folder / CRM)
        if features.vectors is not None:
            features.vectors.write_parquet(folder / VECTORS)
        record = adapter_record.to_json() | {
            **trace,
            "standard": features.standardization.as_dict(),
            "versions": versions(),
        }
        write_json(folder / RECORD, record)
        write_template(folder, adapter_record)
        if report is not None:
            report(UserRouterResult(folder, users, record))
        run.log(_figures(folder, weights))
        run.log_pictures(sorted(folder.glob("*.png")))
    return UserRouterResult(out, users, record)


def _draw_cases(dataset: Dataset, split: Split, config: UserRouterConfig) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return validation cases that are held out, and those that the router is trained on.

    Raises:
        LorarecError: There are too few validation cases.
    """
    drawn = sample_cases(split.valid, config.cases, config.seed)
    held = round(config.held_out * len(drawn))
    if not 0 < held < len(drawn):
        raise LorarecError(f"{dataset.name}: {len(drawn)} validation cases are too few: some of them are held out")
    return drawn[:held], drawn[held:]


def _figures(folder: Path, weights: np.ndarray) -> dict[str, float]:
    """Return what trackers get at the end: mean weights, and the metrics of every row if they were written.

    Args:
        folder: Folder of the user router.
        weights: Weights of the users, (users, layers, K).
    """
    figures = {f"mean_weights/{number}": weight for number, weight in enumerate(weights.mean((0, 1)).tolist(), 1)}
    settings = read_json(folder / METRICS)["settings"] if (folder / METRICS).is_file() else {}
    for result in settings.values():
        for row, values in result["rows"].items():
            figures |= {f"test_{row}/{name}": values[name]["mean"] for name in METRIC_NAMES}
    return figures


def _cases(
    prompts: MixingPrompts, dataset: Dataset, split: Split, cases: pl.DataFrame, users: pl.DataFrame
) -> RouterCases:
    representations = cases.join(users, on=USER, how="left", maintain_order="left")[REPRESENTATION].to_numpy()
    return RouterCases(
        prompts.examples(dataset, split, cases), true_places(cases), torch.from_numpy(representations.copy())
    )
