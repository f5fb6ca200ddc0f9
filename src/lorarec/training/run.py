"""`train`: from datasets to a PEFT folder."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import get_int_from_env
from transformers import TrainingArguments

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, load_split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, Progress, refuse_existing, versions
from lorarec.options import build_options
from lorarec.prompts import PromptBuilder, read_template
from lorarec.training.cases import TrainingCases
from lorarec.training.checkpoints import Checkpoints
from lorarec.training.config import TrainingConfig
from lorarec.training.micro_batches import MicroBatches
from lorarec.training.record import LOGS, identity, outcome, write_adapter
from lorarec.training.scoring_model import adapted
from lorarec.training.trainer import AdapterTrainer
from lorarec.training.validation import Validation

WORLD_SIZE = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # of torchrun and of MPI


def train(
    backbone: Backbone,
    datasets: Sequence[Dataset | tuple[Dataset, Split]],
    out: str | Path,
    *,
    start_from: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    **options: Any,
) -> Path:
    """Train a LoRA adapter and write it as a plain PEFT folder with `lorarec.json` beside the weights.

    Several datasets make a domain-general adapter, one makes a domain-specific one (MoLoRec, arXiv 2502.08271,
    sections 3.1 and 3.2). While it runs, checkpoints are kept in `OUT.checkpoints`. The backbone is left as it was.
    Under `accelerate launch` every process calls this function; the result is that of a single process up to the
    order of float additions.

    Args:
        datasets: datasets with their splits; one without a split uses the split stored with it, or the default one.
        out: the adapter folder to make.
        start_from: a PEFT folder to fine-tune further ("second round"); its rank, alpha and layers then stand.
        resume: go on from the last checkpoint of an interrupted run, if there is one; the weights end up as those
            of an uninterrupted run.
        overwrite: replace what is at `out`.
        progress: show the progress on standard error.
        options: fields of `TrainingConfig`.

    Returns:
        The adapter folder.

    Raises:
        LorarecError: an option is out of range, a dataset has no training cases or too few items, `out` exists,
            `start_from` belongs to another backbone, or the training diverged.
    """
    chosen = build_options(TrainingConfig, options, "training option")
    out = Path(out)
    refuse_existing(out, overwrite, FolderKind.ADAPTER)
    pairs = [(item, load_split(item)) if isinstance(item, Dataset) else item for item in datasets]
    if not pairs:
        raise LorarecError("no dataset to train on: name at least one")
    template = None if chosen.template is None else read_template(chosen.template)
    decided = identity(backbone, pairs, chosen, template, start_from)
    checkpoints = Checkpoints(out, decided)
    checkpoints.refuse(resume, overwrite)
    builder = PromptBuilder(
        backbone.tokenizer,
        readout=chosen.readout,
        template=template,
        max_tokens=backbone.token_limit(chosen.max_tokens),
        max_title_tokens=chosen.max_title_tokens,
    )
    processes = get_int_from_env(WORLD_SIZE, 1)
    batches = MicroBatches(TrainingCases(pairs, chosen), builder, chosen, processes)
    validation = Validation(pairs, builder, chosen)
    arguments = _arguments(backbone, chosen, batches, bool(len(validation)), checkpoints.folder, processes)
    state = PartialState()
    shown = Progress("Training", batches.steps, shown=progress and state.is_main_process)
    with adapted(backbone, builder, chosen, start_from) as model, checkpoints.open(resume, state), shown:
        checked = validation if len(validation) else None
        trainer = AdapterTrainer(model, arguments, batches, checked, chosen, shown, checkpoints.folder / LOGS)
        trainer.train(resume_from_checkpoint=checkpoints.latest() if resume else None)
        trainer.save_model(str(checkpoints.folder / "final"))
        if state.is_main_process:
            record = decided | {"versions": versions(), "training": outcome(trainer, batches, validation)}
            write_adapter(out, checkpoints.folder, record, template, overwrite)
            checkpoints.remove()
    state.wait_for_everyone()
    return out


def warmup_steps(share: float, steps: int) -> int:
    """Return the number of warm-up steps; it is less than all, so that a run of one step has a rate above zero."""
    return min(math.ceil(share * steps), steps - 1)


def _arguments(
    backbone: Backbone, options: TrainingConfig, batches: MicroBatches, validate: bool, folder: Path, processes: int
) -> TrainingArguments:
    every = options.eval_steps or -(-batches.steps_per_epoch // 2)
    on_gpu = torch.cuda.is_available() and (processes > 1 or backbone.model.device.type == "cuda")
    bf16 = options.precision == "bf16" or (
        options.precision == "auto" and on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=batches.parts // processes,
        num_train_epochs=1,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=warmup_steps(options.warmup_ratio, batches.steps),
        weight_decay=options.weight_decay,
        bf16=bf16,
        use_cpu=processes == 1 and backbone.model.device.type == "cpu",
        logging_steps=max(1, batches.steps // 100),
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        log_level="error",
        report_to=[],
        eval_strategy="steps" if validate else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=validate,
        metric_for_best_model="ndcg@1" if validate else None,
        greater_is_better=True if validate else None,
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        seed=options.seed,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs are for `accelerate launch`, not for DataParallel
    return arguments
