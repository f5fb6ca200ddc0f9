"""The Trainer of transformers with the losses, seeds and validation of lorarec."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import EarlyStoppingCallback, TrainerControl, TrainerState

from lorarec.errors import LorarecError
from lorarec.io import JsonObject, Progress
from lorarec.scoring import evaluation_mode, tokens_per_pass
from lorarec.training.config import TrainingConfig
from lorarec.training.losses import ProximalTerm, listwise, next_token, pointwise
from lorarec.training.micro_batches import MicroBatches
from lorarec.training.scoring_model import ScoringModel
from lorarec.training.validation import Validation


class AdapterTrainer(Trainer):
    """Trains the adapter of a `ScoringModel` on the micro-batches of a whole run.

    The Trainer runs a single epoch over all of them. Dropout masks are seeded by the micro-batch, so that neither
    resuming nor the number of processes changes them, and no generator state has to be stored.

    Args:
        model: Model to train.
        arguments: Arguments of the Trainer.
        batches: Micro-batches of the run.
        validation: Validation cases, or None.
        config: Options.
        progress: Progress bar of the optimizer steps.
        callbacks: Further callbacks, such as those of trackers.
    """

    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: ScoringModel,
        arguments: TrainingArguments,
        batches: MicroBatches,
        validation: Validation | None,
        config: TrainingConfig,
        progress: Progress,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        own: list[TrainerCallback] = [ProgressCallback(progress)] if arguments.process_index == 0 else []
        if config.patience is not None and validation is not None:
            own.append(EarlyStoppingCallback(config.patience))
        super().__init__(
            model,
            arguments,
            data_collator=_only,
            train_dataset=batches,
            eval_dataset=validation,
            callbacks=[*own, *callbacks],
        )
        self.remove_callback(PrinterCallback)
        self.config = config
        self.validation = validation
        self.proximal_term = None
        if config.proximal:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise LorarecError("option proximal needs whole parameters: train without FSDP and DeepSpeed")
            self.proximal_term = ProximalTerm(each for each in model.parameters() if each.requires_grad)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        """Return a sampler that keeps the order of the micro-batches."""
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def compute_loss(
        self,
        model: Callable[..., list[torch.Tensor]],
        inputs: dict[str, Any],  # a `MicroBatch`
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return the scaled loss of one micro-batch, with the proximal term if there is one."""
        torch.manual_seed(inputs["seed"])
        scores = model(inputs["examples"])
        if self.config.loss == "next-token":
            loss = next_token(scores)
        elif self.config.loss == "pointwise":
            loss = pointwise(scores, inputs["targets"])
        else:
            loss = listwise(scores, inputs["targets"], self.config.temperature)
        loss = loss * inputs["scale"]
        # The losses of the micro-batches of a step are averaged, so that each has the whole term.
        return loss if self.proximal_term is None else loss + self.config.proximal * self.proximal_term()

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return NDCG on the validation cases."""
        assert self.validation is not None, "evaluation is off without validation cases"
        budget = tokens_per_pass(self.model, self.config.token_budget)
        with evaluation_mode(self.model_wrapped):
            ndcg = self.validation.metrics(self.model_wrapped, budget, self.args.process_index, self.args.world_size)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in ndcg.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log metrics, and stop a run that has diverged.

        The epoch is that of the training cases. At the end the metrics of the best evaluation are logged, whose weights
        the adapter has, in place of the Trainer's figures: its samples are micro-batches, and its mean loss and its
        times leave out what an interrupted run had done.

        Raises:
            LorarecError: If the loss is not finite.
        """
        if not torch.tensor(logs.get("loss", 0.0)).isfinite():
            raise LorarecError(f"the loss is {logs['loss']} at step {self.state.global_step}: lower the learning rate")
        if "train_runtime" in logs:
            logs = {f"eval_best_{name}": value for name, value in (self.best_evaluation or {}).items()}
        if not logs:
            return
        logs = logs | {"epoch": (self.state.epoch or 0.0) * self.config.epochs}
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    @property
    def evaluations(self) -> list[JsonObject]:
        """Step and validation metrics of every evaluation, also of those before an interruption."""
        return [
            {"step": entry["step"]}
            | {name.removeprefix("eval_"): entry[name] for name in sorted(entry) if name.startswith("eval_")}
            for entry in self.state.log_history  # a resumed run restores its entries with their keys in another order
            if "eval_ndcg@1" in entry
        ]

    @property
    def best_evaluation(self) -> JsonObject | None:
        """The evaluation with the highest NDCG@1, the first of equal ones; None without validation."""
        return max(self.evaluations, key=lambda entry: (entry["ndcg@1"], -entry["step"]), default=None)

    def _save_rng_state(self, output_dir: str) -> None:
        """Store nothing, since the dropout masks are seeded by the micro-batch."""


class ProgressCallback(TrainerCallback):
    """Shows the optimizer steps of the run, with the latest loss and NDCG@1."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.metrics: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.progress.resume(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.progress.update(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        titles = {"loss": "loss", "eval_ndcg@1": "NDCG@1"}
        self.metrics |= {titles[name]: f"{value:.3f}" for name, value in (logs or {}).items() if name in titles}
        self.progress.update(state.global_step, ", ".join(f"{name} {value}" for name, value in self.metrics.items()))


def _only(batch: list[Any]) -> dict[str, Any]:
    """Return the only element of a batch; the loader reads micro-batches one at a time."""
    return batch[0]
