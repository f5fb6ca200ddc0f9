"""The record of a training run, `lorarec.json` beside the weights."""

import hashlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, JsonObject, new_folder, write_json
from lorarec.lora import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_RECORD_FILE,
    ADAPTER_WEIGHTS_FILE,
    Adapter,
    read_adapter,
    recorded_settings,
    same_tensors,
    trained_on,
    write_template,
)
from lorarec.prompts import TemplateText
from lorarec.training.config import TrainingConfig
from lorarec.training.micro_batches import MicroBatches
from lorarec.training.trainer import AdapterTrainer
from lorarec.training.validation import Validation

LOGS = "tensorboard"

logger = logging.getLogger(__name__)


def run_identity(
    backbone: Backbone, pairs: Sequence[tuple[Dataset, Split]], config: TrainingConfig, start: Adapter | None
) -> JsonObject:
    """Return everything that decides the weights, as `lorarec.json` records it.

    Args:
        backbone: Backbone that the adapter is trained on.
        pairs: Datasets with their splits.
        config: Options, with a template that has been read.
        start: Adapter that training starts from, if any.
    """
    template = config.template
    text = template.text if isinstance(template, TemplateText) else None
    options = recorded_settings(vars(config))
    return {
        "backbone": {"id": backbone.id, "fingerprint": backbone.fingerprint},
        "datasets": [_dataset(dataset, split) for dataset, split in pairs],
        "template": options["template"],
        "template_fingerprint": None if text is None else hashlib.sha256(text.encode()).hexdigest()[:16],
        "readout": config.readout,
        "loss": config.loss,
        "start_from": None if start is None else _source(start),
        "seed": config.seed,
        "options": options,
    }


def _source(adapter: Adapter) -> JsonObject:
    return {"path": str(adapter.folder), "fingerprint": adapter.fingerprint, "datasets": trained_on(adapter)}


def _dataset(dataset: Dataset, split: Split) -> JsonObject:
    entry = {"name": dataset.name, "fingerprint": dataset.fingerprint, "split": split.cases}
    return entry | ({"few_shot": split.info["few_shot"]} if "few_shot" in split.info else {})


def training_summary(trainer: AdapterTrainer, batches: MicroBatches, validation: Validation) -> JsonObject:
    """Return the number of steps and cases, the last loss, and the validation metrics of every evaluation."""
    history = trainer.state.log_history  # a resumed run restores its entries with their keys in another order
    evaluations = [
        {"step": entry["step"]}
        | {name.removeprefix("eval_"): entry[name] for name in sorted(entry) if name.startswith("eval_")}
        for entry in history
        if "eval_ndcg@1" in entry
    ]
    best = max(evaluations, key=lambda entry: (entry["ndcg@1"], -entry["step"]), default=None)
    return {
        "steps": trainer.state.global_step,
        "loss": next((entry["loss"] for entry in reversed(history) if "loss" in entry), None),
        "steps_per_epoch": batches.steps_per_epoch,
        "processes": trainer.args.world_size,
        "cases_per_epoch": len(batches.cases),
        "users_set_aside": sum(source.users_set_aside for source in batches.cases.sources),
        "validation_cases": len(validation),
        "validation": best,
        "evaluations": evaluations,
    }


def write_adapter(
    out: Path, staged: Path, record: JsonObject, config: TrainingConfig, start: Adapter | None, overwrite: bool
) -> None:
    """Write the adapter folder: weights and logs of the folder of checkpoints, the record, and a custom template.

    A warning is logged if training did not change the adapter.

    Raises:
        LorarecError: If the weights are not finite, or `out` exists or cannot be written to.
    """
    try:
        trained = read_adapter(staged / "final")
    except LorarecError as error:
        raise LorarecError(f"the training diverged, lower the learning rate: {error}") from error
    if trained.is_zero:
        logger.warning("adapter %s changes nothing, since B is zero in all layers: train for more steps", out)
    elif start is not None and same_tensors(trained, start):
        logger.warning("adapter %s equals the one that it started from: train for more steps", out)
    with new_folder(out, overwrite, FolderKind.ADAPTER) as folder:
        for name in (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE):
            shutil.copyfile(staged / "final" / name, folder / name)
        if (staged / LOGS).is_dir():
            shutil.copytree(staged / LOGS, folder / LOGS)
        write_json(folder / ADAPTER_RECORD_FILE, record)
        write_template(folder, config.template)
