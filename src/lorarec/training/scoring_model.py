"""The model that is trained: a backbone with a fresh or continued LoRA adapter whose forward pass ranks candidates."""

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from safetensors.torch import save_file

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.lora import DEFAULT_LORA_ALPHA, DEFAULT_R, Adapter, linear_layers, read_adapter, save_config
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import score_batch
from lorarec.training.config import TrainingConfig
from lorarec.training.cpu_lora import ADAPTER, speed_up


class ScoringModel(PeftModel):
    """A PEFT model whose `forward` takes examples and returns scores.

    Data-parallel and sharded wrappers synchronise around `forward`, so the whole pass from token ids to candidate
    scores has to happen inside it.
    """

    builder: PromptBuilder

    def forward(self, examples: Sequence[Example]) -> list[torch.Tensor]:
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
        config: Any = self.peft_config[ADAPTER]
        config.inference_mode = True
        save_config(config, folder)
        config.inference_mode = False


@contextmanager
def adapted(
    backbone: Backbone, builder: PromptBuilder, options: TrainingConfig, start_from: str | Path | None = None
) -> Iterator[ScoringModel]:
    """Put a trainable adapter into the backbone's model, and take it out again at the end, whatever happens.

    Args:
        start_from: a PEFT folder of this backbone to go on from; its rank, alpha and layers then stand instead of
            the options'.

    Raises:
        LorarecError: `options.target_modules` names something else than linear layers.
    """
    base = backbone.model
    use_cache, training = base.config.use_cache, base.training
    start = None if start_from is None else read_adapter(start_from, backbone)
    layers = target_layers(base, options.target_modules) if start is None else list(start.tensors)
    config = _fresh_config(base, options, layers) if start is None else _continued_config(start, options)
    config.base_model_name_or_path = backbone.id
    torch.manual_seed(options.seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT reads renamed attributes, and sets fan_in_fan_out for GPT-2 itself
            model = ScoringModel(base, config)
    except ValueError as error:
        raise LorarecError(
            f"cannot put an adapter on {options.target_modules}: {' '.join(str(error).split())}"
        ) from error
    try:
        modules: dict[str, Any] = {name: each for name, each in base.named_modules() if isinstance(each, LoraLayer)}
        if modules.keys() != set(layers):
            raise LorarecError(f"PEFT cannot adapt these layers of {backbone.id} alone: choose other targets")
        model.builder = builder
        if start is not None:
            _fill(modules, start)
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


def target_layers(model: Any, targets: str) -> list[str]:
    """The linear layers that get an adapter.

    A mixture of experts keeps its experts, and often its router, as fused parameters, which are no linear layers: there
    `all-linear` is attention with the dense and shared layers.

    Args:
        targets: `all-linear`, or comma-separated names or last parts of names.

    Raises:
        LorarecError: a name that no linear layer has, or one under which PEFT takes fused parameters.
    """
    linear = linear_layers(model)
    last = {name.rpartition(".")[2] for name in linear}
    fused = {name for name in last if _is_fused(model, name)}
    if targets.strip() == "all-linear":
        return [name for name in linear if name.rpartition(".")[2] not in fused]
    chosen: dict[str, None] = {}
    for target in map(str.strip, targets.split(",")):
        found = [name for name in linear if name == target or name.endswith(f".{target}")]
        if not found or target.rpartition(".")[2] in fused:
            known = ", ".join(sorted(last - fused))
            raise LorarecError(f"cannot put an adapter on {target}: it is no linear layer: choose from {known}")
        chosen |= dict.fromkeys(found)
    return list(chosen)


def _is_fused(model: Any, name: str) -> bool:
    """Return whether PEFT would apply this target name to the fused parameters of the model's experts."""
    config = LoraConfig(target_modules=[name])
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # one of several that are fused into one
        return True
    return bool(config.target_parameters)


def _checkpointing(model: Any, verb: str) -> None:
    """transformers calls it activation checkpointing since 5.2x."""
    name = f"activation_checkpointing_{verb}"
    getattr(model, name if hasattr(model, name) else f"gradient_checkpointing_{verb}")()


def _fresh_config(model: Any, options: TrainingConfig, layers: Sequence[str]) -> LoraConfig:
    last = {name.rpartition(".")[2] for name in layers}
    # Last parts of names say the same in fewer words, unless other modules share them.
    same = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in last} == set(layers)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=options.r,
        lora_alpha=int(options.lora_alpha) if options.lora_alpha.is_integer() else options.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=options.lora_dropout,
        target_modules=list(last if same else layers),
    )


def _continued_config(start: Adapter, options: TrainingConfig) -> LoraConfig:
    """Return a configuration with the ranks, alphas and layers of an adapter.

    Its own patterns are not passed on, since PEFT matches regular expressions without a time limit.
    """
    r, rslora = start.config.get("r", DEFAULT_R), bool(start.config.get("use_rslora"))
    # PEFT takes the first pattern that fits the end of a name.
    names = sorted(start.tensors, key=len, reverse=True)
    ranks = {re.escape(name): start.ranks[name] for name in names if start.ranks[name] != r}
    alphas = {re.escape(n): start.scales[n] * (math.sqrt(start.ranks[n]) if rslora else start.ranks[n]) for n in names}
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=r,
        lora_alpha=start.config.get("lora_alpha", DEFAULT_LORA_ALPHA),
        lora_dropout=options.lora_dropout,
        use_rslora=rslora,
        target_modules=list(start.tensors),
        rank_pattern=ranks,
        alpha_pattern=alphas if start.config.get("alpha_pattern") else {},
    )


@torch.no_grad()
def _fill(modules: dict[str, Any], start: Adapter) -> None:
    """Copy the weights of a finished adapter into the new one."""
    for name, (a, b) in start.tensors.items():
        modules[name].lora_A[ADAPTER].weight.copy_(a)
        modules[name].lora_B[ADAPTER].weight.copy_(b)
