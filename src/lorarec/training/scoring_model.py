"""The model that is trained: a backbone with a LoRA adapter, whose forward pass scores candidates."""

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from safetensors.torch import save_file

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.lora import DEFAULT_LORA_ALPHA, DEFAULT_R, Adapter, is_read_by_kernels, save_config, text_layers
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import TOKEN_BUDGET, score_batch, tokens_per_pass
from lorarec.training.config import TrainingConfig
from lorarec.training.cpu_lora import ADAPTER, speed_up


class ScoringModel(PeftModel):
    """A PEFT model whose `forward` takes examples and returns scores.

    Data-parallel and sharded wrappers synchronize around `forward`, so the whole pass from token ids to scores of
    candidates must happen inside it.

    Attributes:
        builder: Builder of the prompts.
        limit: Number of tokens whose activations fit into memory, or None. Those of longer batches are computed again
            in the backward pass, if the model can do that.
    """

    builder: PromptBuilder
    limit: int | None = None

    def forward(self, examples: Sequence[Example]) -> list[torch.Tensor]:
        """Return one (candidates,) tensor of scores per example, computed in one pass."""
        model: Any = self.base_model.model
        if not torch.is_grad_enabled():
            return score_batch(model, examples, self.builder, tokens_per_pass(model))
        limit = self.limit
        with ExitStack() as stack:
            if limit is not None and len(examples) * max(example.length for example in examples) > limit:
                stack.enter_context(_recomputed(model))
            return score_batch(model, examples, self.builder, limit or TOKEN_BUDGET)

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str,
        state_dict: dict[str, torch.Tensor] | None = None,
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
    backbone: Backbone, builder: PromptBuilder, config: TrainingConfig, start: Adapter | None = None
) -> Iterator[ScoringModel]:
    """Add a trainable adapter to the backbone's model; on exit, also by an exception, it is removed again.

    Args:
        backbone: Backbone that the adapter is trained on.
        builder: Builder of the prompts that the model is called with.
        config: Options.
        start: Adapter of this backbone to train further; its layers, r and lora_alpha replace those of `config`.

    Raises:
        LorarecError: If `config.target_modules` names modules that are not linear layers, or the adapter `start` is on
            layers whose weights kernels read in training.
    """
    base = backbone.model
    read = [] if start is None else [name for name in start.tensors if is_read_by_kernels(base, name)]
    if start is not None and read:
        raise LorarecError(
            f"adapter {start.source} cannot be trained further: it is on {read[0]}, whose weights {backbone.id} reads "
            "in training without calling the layer where its kernels are installed"
        )
    # The Trainer switches the cache off, also for configurations that do not have the setting.
    use_cache, training = getattr(base.config, "use_cache", None), base.training
    layers = target_layers(base, config.target_modules) if start is None else list(start.tensors)
    lora = _fresh_lora(base, config, layers) if start is None else _continued_lora(start, config)
    lora.base_model_name_or_path = backbone.base_model
    torch.manual_seed(config.seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT reads renamed attributes, and sets fan_in_fan_out for GPT-2 itself
            model = ScoringModel(base, lora)
    except (ValueError, TypeError) as error:
        _restore_layers(base)
        reason = " ".join(str(error).split())
        raise LorarecError(f"cannot put an adapter on {config.target_modules}: {reason}") from error
    try:
        modules = {name: each for name, each in base.named_modules() if isinstance(each, LoraLayer)}
        if modules.keys() != set(layers):
            raise LorarecError(f"PEFT cannot adapt these layers of {backbone.id} alone: choose other target_modules")
        model.builder = builder
        if start is not None:
            _fill(modules, start)
        if base.device.type == "cpu" and config.precision != "bf16":
            speed_up(model)
        if config.gradient_checkpointing:
            _checkpointing(base, "enable")
        yield model
    finally:
        model.unload()
        if config.gradient_checkpointing:
            _checkpointing(base, "disable")
        if use_cache is not None:
            base.config.use_cache = use_cache
        elif hasattr(base.config, "use_cache"):
            del base.config.use_cache
        base.train(training)


def _restore_layers(model: Any) -> None:
    """Put the layers of a model back that PEFT replaced before it failed on another one."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            model.set_submodule(name, layer.get_base_layer())


def target_layers(model: Any, target_modules: str) -> list[str]:
    """Return the names of the linear layers that get an adapter.

    A mixture of experts has its experts, and often its router, as fused parameters, which are no linear layers; with
    `all-linear` the adapter is on attention and on the dense and shared layers.

    Args:
        model: Hugging Face model.
        target_modules: `all-linear`, or comma-separated names or last parts of names.

    Raises:
        LorarecError: If no linear layer has one of the names, or PEFT applies it to fused parameters.
    """
    linear = text_layers(model)
    last = {name.rpartition(".")[2] for name in linear}
    fused = {name for name in last if _is_fused(model, name)}
    if target_modules.strip() == "all-linear":
        return [name for name in linear if name.rpartition(".")[2] not in fused]
    chosen: dict[str, None] = {}
    for target in map(str.strip, target_modules.split(",")):
        found = [name for name in linear if name == target or name.endswith(f".{target}")]
        if not found or target.rpartition(".")[2] in fused:
            known = ", ".join(sorted(last - fused))
            reason = "no linear layer that the model calls in training has this name"
            raise LorarecError(f"cannot put an adapter on {target}: {reason}: choose from {known}")
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


@contextmanager
def _recomputed(model: Any) -> Iterator[None]:
    """Compute the activations of forward passes within the block again in the backward pass, if the model can."""
    switch = getattr(model, "supports_gradient_checkpointing", False) and not _is_checkpointing(model)
    if switch:
        _checkpointing(model, "enable")
    try:
        yield
    finally:
        if switch:
            _checkpointing(model, "disable")


def _is_checkpointing(model: Any) -> bool:
    """Return whether gradient checkpointing is enabled; the name differs as for `_checkpointing`."""
    name = "is_activation_checkpointing"
    return bool(getattr(model, name if hasattr(model, name) else "is_gradient_checkpointing"))


def _checkpointing(model: Any, verb: Literal["enable", "disable"]) -> None:
    """Enable or disable gradient checkpointing, which newer versions of transformers call activation checkpointing."""
    name = f"activation_checkpointing_{verb}"
    getattr(model, name if hasattr(model, name) else f"gradient_checkpointing_{verb}")()


def _fresh_lora(model: Any, config: TrainingConfig, layers: Sequence[str]) -> LoraConfig:
    last = {name.rpartition(".")[2] for name in layers}
    # The last parts of names suffice, unless other modules have them too.
    suffices = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in last} == set(layers)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=config.r,
        lora_alpha=int(config.lora_alpha) if config.lora_alpha.is_integer() else config.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=config.lora_dropout,
        target_modules=list(last if suffices else layers),
    )


def _continued_lora(start: Adapter, config: TrainingConfig) -> LoraConfig:
    """Return a configuration with the ranks, alphas and layers of an adapter.

    Its own patterns are not used, since PEFT matches regular expressions without a time limit.
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
        lora_dropout=config.lora_dropout,
        use_rslora=rslora,
        target_modules=list(start.tensors),
        rank_pattern=ranks,
        alpha_pattern=alphas if start.config.get("alpha_pattern") else {},
    )


@torch.no_grad()
def _fill(modules: Mapping[str, Any], start: Adapter) -> None:
    """Copy the weights of a trained adapter into the new one."""
    for name, (a, b) in start.tensors.items():
        modules[name].lora_A[ADAPTER].weight.copy_(a)
        modules[name].lora_B[ADAPTER].weight.copy_(b)
