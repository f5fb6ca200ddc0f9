"""What an adapter folder says about itself: `lorarec.json`."""

import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, new_folder, write_json
from lorarec.lora import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_RECORD_FILE,
    ADAPTER_WEIGHTS_FILE,
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


def identity(
    backbone: Backbone,
    pairs: Sequence[tuple[Dataset, Split]],
    options: TrainingConfig,
    template: str | TemplateText | None,
    start_from: str | Path | None,
) -> dict[str, Any]:
    """What decides the weights, as recorded in `lorarec.json`.

    Args:
        template: what `options.template` names.

    Raises:
        LorarecError: `start_from` is no LoRA adapter of this backbone.
    """
    start = None
    if start_from is not None:
        parent = read_adapter(start_from, backbone)
        start = {"path": str(start_from), "fingerprint": parent.fingerprint, "datasets": trained_on(parent)}
    own = template.text if isinstance(template, TemplateText) else None
    settings = recorded_settings(asdict(options) | {"template": template})
    return {
        "backbone": {"id": backbone.id, "fingerprint": backbone.fingerprint},
        "datasets": [_dataset(dataset, split) for dataset, split in pairs],
        "template": settings["template"],
        "template_fingerprint": None if own is None else hashlib.sha256(own.encode()).hexdigest()[:16],
        "readout": options.readout,
        "loss": options.loss,
        "start_from": start,
        "seed": options.seed,
        "options": settings,
    }


def _dataset(dataset: Dataset, split: Split) -> dict[str, Any]:
    entry = {"name": dataset.name, "fingerprint": dataset.fingerprint, "split": split.cases}
    return entry | ({"few_shot": split.info["few_shot"]} if "few_shot" in split.info else {})


def outcome(trainer: AdapterTrainer, batches: MicroBatches, validation: Validation) -> dict[str, Any]:
    """How far the run went and the validation figures of every evaluation."""
    history = trainer.state.log_history  # of a resumed run its entries come back with their keys in another order
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
    out: Path, staged: Path, record: dict[str, Any], template: str | TemplateText | None, overwrite: bool
) -> None:
    """Make the adapter folder: weights and logs from the folder of checkpoints, the record, and one's own template.

    Training that left the adapter as it started is reported as a warning.

    Raises:
        LorarecError: the weights are not finite, or `out` exists or cannot be written to.
    """
    try:
        trained = read_adapter(staged / "final")
    except LorarecError as error:
        raise LorarecError(f"the training diverged, lower the learning rate: {error}") from error
    if trained.is_zero:
        logger.warning("adapter %s changes nothing, since B is zero in all layers: train for more steps", out)
    elif record["start_from"] and same_tensors(trained, read_adapter(record["start_from"]["path"])):
        logger.warning("adapter %s equals the one that it started from: train for more steps", out)
    with new_folder(out, overwrite, FolderKind.ADAPTER) as folder:
        for name in (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE):
            shutil.copyfile(staged / "final" / name, folder / name)
        if (staged / LOGS).is_dir():
            shutil.copytree(staged / LOGS, folder / LOGS)
        write_json(folder / ADAPTER_RECORD_FILE, record)
        write_template(folder, template)
