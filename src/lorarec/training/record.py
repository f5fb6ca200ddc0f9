"""The record of a training run, `lorarec.json` beside the weights."""

import hashlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, HubId, JsonObject, new_folder
from lorarec.lora import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_WEIGHTS_FILE,
    DEFAULT_LORA_ALPHA,
    DEFAULT_R,
    Adapter,
    AdapterRecord,
    read_adapter,
    same_tensors,
    source_record,
    text_layers,
    write_description,
)
from lorarec.prompts import TemplateText
from lorarec.training.config import TrainingConfig
from lorarec.training.micro_batches import MicroBatches
from lorarec.training.scoring_model import target_layers
from lorarec.training.trackers import LOGS
from lorarec.training.trainer import AdapterTrainer
from lorarec.training.validation import Validation

logger = logging.getLogger(__name__)


def run_record(
    backbone: Backbone, pairs: Sequence[tuple[Dataset, Split]], config: TrainingConfig, start: Adapter | None
) -> AdapterRecord:
    """Return the record of an adapter to be trained: everything that decides its weights.

    Args:
        backbone: Backbone that the adapter is trained on.
        pairs: Datasets with their splits.
        config: Options, with a template that has been read.
        start: Adapter that training starts from, if any.
    """
    template = config.template
    text = template.text if isinstance(template, TemplateText) else None
    prompt = config.prompt
    options = {name: value for name, value in vars(config).items() if name not in vars(prompt)}
    if start is not None:
        options |= _lora_options(start, backbone)
    if not config.proximal:  # without it, a record is that of versions before the option existed
        del options["proximal"]
    return AdapterRecord(
        prompt=prompt,
        backbone_id=backbone.id,
        backbone_fingerprint=backbone.fingerprint,
        datasets=tuple(_dataset(dataset, split) for dataset, split in pairs),
        start_from=None if start is None else source_record(start),
        options=options,
        details={
            "template_fingerprint": None if text is None else hashlib.sha256(text.encode()).hexdigest()[:16],
            "loss": config.loss,
            "seed": config.seed,
        },
    )


def _lora_options(start: Adapter, backbone: Backbone) -> JsonObject:
    """Return the options of the adapter that training starts from, which replace those of the configuration."""
    return {
        "r": start.config.get("r", DEFAULT_R),
        "lora_alpha": float(start.config.get("lora_alpha", DEFAULT_LORA_ALPHA)),
        "target_modules": _target_modules(set(start.tensors), backbone.model),
    }


def _target_modules(layers: set[str], model: Any) -> str:
    """Return the option that chooses the layers of a model: `all-linear`, the last parts of their names, or names."""
    if layers == set(target_layers(model, "all-linear")):
        return "all-linear"
    modules = {name.rpartition(".")[2] for name in layers}
    chosen = {name for name in text_layers(model) if name.rpartition(".")[2] in modules}
    return ",".join(sorted(modules if chosen == layers else layers))


def _dataset(dataset: Dataset, split: Split) -> JsonObject:
    entry = {"name": dataset.name, "fingerprint": dataset.fingerprint, "split": split.cases}
    cached = dataset.folder and HubId.of_folder(dataset.folder)
    entry |= {"hub_id": cached.repo_id} if cached else {}
    return entry | {name: split.info[name] for name in ("few_shot", "new_since") if name in split.info}


def training_summary(trainer: AdapterTrainer, batches: MicroBatches, validation: Validation) -> JsonObject:
    """Return the number of steps, passes and cases, the last loss, and the validation metrics of every evaluation."""
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "steps": trainer.state.global_step,
        "loss": losses[-1] if losses else None,
        "steps_per_epoch": batches.steps_per_epoch,
        "passes_per_step": batches.parts,
        "processes": trainer.args.world_size,
        "cases_per_epoch": len(batches.cases),
        "users_set_aside": sum(source.users_set_aside for source in batches.cases.sources),
        "validation_cases": len(validation),
        "validation_protocols": validation.protocols,
        "validation": trainer.best_evaluation,
        "evaluations": trainer.evaluations,
    }


def write_adapter(out: Path, staged: Path, record: AdapterRecord, start: Adapter | None, overwrite: bool) -> None:
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
        write_description(folder, record)
