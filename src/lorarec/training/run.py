"""Training of an adapter, from datasets to a PEFT folder."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object, get_int_from_env
from transformers import TrainerCallback

from lorarec.backbone import Backbone, default_device, has_native_bf16
from lorarec.data import Dataset, Split, load_split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, Progress, refuse_existing, versions
from lorarec.lora import Adapter, AdapterLike, prompt_config, read_adapter
from lorarec.prompts import LATEST, read_template
from lorarec.training.cases import IndexBuilder, TrainingCases
from lorarec.training.checkpoints import Checkpoints
from lorarec.training.config import TrainingConfig
from lorarec.training.memory import pass_limit
from lorarec.training.micro_batches import MicroBatches
from lorarec.training.record import run_record, training_summary, write_adapter
from lorarec.training.scoring_model import ScoringModel, adapted
from lorarec.training.tracking import TrackedArguments, shown_options, tracked_run
from lorarec.training.tracking_config import NONE, TrackingConfig
from lorarec.training.trainer import AdapterTrainer
from lorarec.training.validation import Validation

WORLD_SIZE = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # of torchrun and of MPI


def train(
    backbone: Backbone,
    datasets: Sequence[Dataset | tuple[Dataset, Split]],
    out: str | Path,
    config: TrainingConfig | None = None,
    *,
    start_from: AdapterLike | None = None,
    build_index: IndexBuilder | None = None,
    tracking: TrackingConfig | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Adapter:
    """Train a LoRA adapter and write it as a plain PEFT folder with `lorarec.json` beside the weights.

    Several datasets give a domain-general adapter, one gives a domain-specific adapter (MoLoRec, arXiv 2502.08271,
    sections 3.1 and 3.2). Other datasets together with that of the target domain give a hybrid adapter (WeaveRec, arXiv
    2510.26546), for example with `balance="equal"`, so that a small target domain has its share. Checkpoints are
    written to `OUT.checkpoints` until training is finished. The backbone is not changed. Under `accelerate launch`
    every process calls this function; the result is that of a single process up to the order of float additions.

    Args:
        backbone: Backbone that the adapter is trained on.
        datasets: Datasets with their splits; a dataset without a split uses the split stored with it, or the default.
        out: Path of the adapter folder to write.
        config: Options; the defaults of `TrainingConfig` if None.
        start_from: Adapter to train further ("second round"); its layers, r and lora_alpha replace those of `config`,
            and the version of the bundled template that it was trained with is used if `config` has no template.
            `config.proximal` keeps the weights near those of this adapter.
        build_index: Function of a dataset and its split that makes the index from which `config.hard_negatives` draws;
            the index must learn from the training part of the split alone, as that of
            `lambda dataset, split: Index.build(dataset, histories=split.train)` does.
        tracking: Trackers that get the loss, the learning rate and the validation metrics; the defaults of
            `TrackingConfig` if None. Trackers get the options as well, and no titles and no ids of users or items.
        callbacks: Further callbacks of the Trainer of transformers. They are called on every process, with the metrics
            that trackers get (`loss`, `eval_ndcg@1` and others); one may stop the training.
        resume: Continue from the last checkpoint of an interrupted run, if there is one; the weights are those of an
            uninterrupted run.
        overwrite: Replace an adapter at `out`.
        progress: Show a progress bar on standard error.

    Returns:
        The adapter, as read from `out`.

    Raises:
        LorarecError: If a dataset has no training cases or too few items, `out` exists, `start_from` belongs to another
            backbone, `config` asks for hard negatives and there is no `build_index` or for a proximal term and there is
            no `start_from`, or the training diverged.

    Examples:
        >>> from lorarec import Backbone, Dataset, TrainingConfig, train
        >>> backbone = Backbone.from_pretrained("embedded")
        >>> config = TrainingConfig(samples=8, batch_size=4, negatives=3, epochs=1, eval_users=0)
        >>> adapter = train(backbone, [Dataset.load("data/shop")], "adapters/trained", config)
        >>> adapter.folder.name
        'trained'
    """
    config = config or TrainingConfig()
    template = None if config.template is None else read_template(config.template)
    out = Path(out)
    refuse_existing(out, overwrite, FolderKind.ADAPTER)
    pairs = [(item, load_split(item)) if isinstance(item, Dataset) else item for item in datasets]
    if not pairs:
        raise LorarecError("no dataset to train on: give at least one")
    if config.proximal and start_from is None:
        raise LorarecError("option proximal keeps an adapter near the one that it starts from: give start_from")
    start = None if start_from is None else read_adapter(start_from, backbone)
    config = replace(config, template=template or _bundled_template(config.readout, start))
    record = run_record(backbone, pairs, config, start)
    checkpoints = Checkpoints(out, record.to_json())
    checkpoints.refuse(resume, overwrite)
    builder = backbone.prompt_builder(config)
    processes = get_int_from_env(WORLD_SIZE, 1)
    batches = MicroBatches(TrainingCases(pairs, config, build_index, progress), builder, config, processes)
    validation = Validation(pairs, builder, config, progress)
    arguments = _arguments(backbone, config, batches, bool(len(validation)), checkpoints.folder, processes)
    state = PartialState()
    tracking = (tracking or TrackingConfig()) if state.is_main_process else TrackingConfig(NONE)
    with adapted(backbone, builder, config, start) as model, checkpoints.open(resume, state):
        if config.token_budget is None:
            model.limit = _pass_limit(model, checkpoints, state, arguments.device.type)
            batches.fit(model.limit)
            arguments.gradient_accumulation_steps = batches.parts // processes
        evaluated = validation if len(validation) else None
        shown = progress and state.is_main_process
        if shown:
            print(batches.describe(), file=sys.stderr, flush=True)
        with (
            Progress("Training", batches.steps, enabled=shown) as bar,
            tracked_run(tracking, out.name, checkpoints.folder, shown_options(record), arguments) as run,
        ):
            trainer = AdapterTrainer(model, arguments, batches, evaluated, config, bar, [*run.callbacks, *callbacks])
            trainer.train(resume_from_checkpoint=checkpoints.latest() if resume else None)
        trainer.save_model(str(checkpoints.folder / "final"))
        if state.is_main_process:
            results = {"versions": versions(), "training": training_summary(trainer, batches, validation)}
            record = replace(record, details=record.details | results)
            write_adapter(out, checkpoints.folder, record, start, overwrite)
            checkpoints.remove()
    state.wait_for_everyone()
    return read_adapter(out)


def _pass_limit(model: ScoringModel, checkpoints: Checkpoints, state: PartialState, device: str) -> int:
    """Return the main process's limit of tokens of a forward pass, which a resumed run reads from its folder."""
    limit = checkpoints.limit or pass_limit(model, device)
    if state.num_processes > 1:
        limit = gather_object([limit])[0]
    if state.is_main_process:
        checkpoints.limit = limit
    return limit


def _bundled_template(readout: str, start: Adapter | None) -> str:
    """Return the version of the readout's bundled template that an adapter was trained with, or the latest version."""
    recorded = None if start is None else prompt_config(start).template
    if isinstance(recorded, str) and recorded.startswith(f"{readout}-v"):
        return recorded
    return LATEST[readout]


def warmup_steps(ratio: float, steps: int) -> int:
    """Return the number of warm-up steps; it is less than all, so that a run of one step has a rate above zero."""
    return min(math.ceil(ratio * steps), steps - 1)


def _arguments(
    backbone: Backbone, config: TrainingConfig, batches: MicroBatches, validate: bool, folder: Path, processes: int
) -> TrackedArguments:
    every = config.eval_steps or -(-batches.steps_per_epoch // 2)
    # Each of several processes moves its model to an accelerator of its own.
    device = default_device() if processes > 1 else backbone.model.device.type
    bf16 = config.precision == "bf16" or (config.precision == "auto" and has_native_bf16(device))
    arguments = TrackedArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=batches.parts // processes,
        num_train_epochs=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=warmup_steps(config.warmup_ratio, batches.steps),
        weight_decay=config.weight_decay,
        bf16=bf16,
        use_cpu=processes == 1 and device == "cpu",
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
        seed=config.seed,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs are for `accelerate launch`, not for DataParallel
    return arguments
