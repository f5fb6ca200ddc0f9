"""The model that is trained: a backbone with a fresh or continued LoRA adapter whose forward pass ranks candidates."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file

from lorarec.adapters.peft_io import save_config
from lorarec.backbone.load import Backbone
from lorarec.errors import LorarecError
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import score_batch
from lorarec.training.cpu import ADAPTER, speed_up
from lorarec.training.options import TrainOptions


class ScoringModel(PeftModel):
    """A PEFT model whose `forward` takes examples and returns scores.

    Data-parallel and sharded wrappers synchronise around `forward`, so the whole pass from token ids to candidate
    scores has to happen inside it.
    """

    builder: PromptBuilder

    def forward(self, examples: Sequence[Example]) -> list[torch.Tensor]:  # type: ignore[override]
        """One (candidates,) tensor of scores per example, in one pass."""
        return score_batch(self.base_model.model, examples, self.builder)

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str,
        state_dict: dict[str, Any] | None = None,
        is_main_process: bool = True,
        **_: Any,
    ) -> None:
        """Write the two files of a PEFT folder; PEFT's own method may ask the hub about the backbone's vocabulary."""
        weights = get_peft_model_state_dict(self, state_dict, ADAPTER, save_embedding_layers=False)
        if not is_main_process:
            return
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()},
            folder / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
        config = self.peft_config[ADAPTER]
        config.inference_mode = True
        save_config(config, folder)
        config.inference_mode = False


@contextmanager
def adapted(
    backbone: Backbone, builder: PromptBuilder, options: TrainOptions, start_from: str | Path | None = None
) -> Iterator[ScoringModel]:
    """Put a trainable adapter into the backbone's model, and take it out again at the end, whatever happens.

    Args:
        start_from: a PEFT folder of this backbone to go on from; its rank, alpha and layers then stand instead of
            the options'.

    Raises:
        LorarecError: no layer matches `options.targets`.
    """
    base = backbone.model
    use_cache, training = base.config.use_cache, base.training
    torch.manual_seed(options.seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT reads an attribute that transformers has renamed
            model = ScoringModel(base, _config(backbone, options, start_from))
    except ValueError as error:
        raise LorarecError(f"cannot put an adapter on {options.targets}: {' '.join(str(error).split())}") from error
    try:
        model.builder = builder
        if start_from is not None:
            _load(model, start_from)
        if base.device.type == "cpu" and options.precision != "bf16":
            speed_up(model)
        if options.gradient_checkpointing:
            _checkpointing(base, "enable")
        yield model
    finally:
        model.unload()
        if options.gradient_checkpointing:
            _checkpointing(base, "disable")
        base.config.use_cache = use_cache
        base.train(training)


def _checkpointing(model: Any, verb: str) -> None:
    """transformers calls it activation checkpointing since 5.2x."""
    name = f"activation_checkpointing_{verb}"
    getattr(model, name if hasattr(model, name) else f"gradient_checkpointing_{verb}")()


def _config(backbone: Backbone, options: TrainOptions, start_from: str | Path | None) -> LoraConfig:
    if start_from is not None:
        config = LoraConfig.from_pretrained(str(start_from))
        config.inference_mode = False
        config.lora_dropout = options.dropout
    else:
        names = [name.strip() for name in options.targets.split(",")]
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=options.rank,
            lora_alpha=int(options.alpha) if options.alpha.is_integer() else options.alpha,  # type: ignore[arg-type]
            lora_dropout=options.dropout,
            target_modules="all-linear" if names == ["all-linear"] else names,
        )
    config.base_model_name_or_path = backbone.id
    return config


def _load(model: ScoringModel, folder: str | Path) -> None:
    """Fill the fresh adapter with the weights of a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.load_adapter(str(folder), ADAPTER, is_trainable=True, torch_device="cpu")
