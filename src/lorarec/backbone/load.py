"""The backbone: any causal language model of Hugging Face, or the embedded one."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import CommitInfo
from huggingface_hub.utils import enable_progress_bars
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import cached_file
from transformers.utils.logging import disable_progress_bar

from lorarec.backbone.config import EMBEDDED, AttentionImplementation, BackboneConfig, Dtype, Quantization
from lorarec.backbone.devices import default_device, has_native_bf16
from lorarec.backbone.fingerprint import fingerprint_of_files, fingerprint_of_first_rows, weights_fingerprint
from lorarec.backbone.gguf_file import is_gguf, original_model, unpacked_gguf
from lorarec.backbone.quantized import DEQUANTIZED, keep_gradients, quantization_arguments, stored_method
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, files_to_push, push_files, read_json, require_model
from lorarec.prompts import PromptBuilder, PromptConfig
from lorarec.scoring import plan_for, require_exact

#: Model card of a folder that has none.
CARD = b"""---
library_name: transformers
pipeline_tag: text-generation
tags:
- lorarec
---

# A causal language model, the backbone of LoRA adapters of lorarec
"""
GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
#: Files of which a folder of Transformers with a tokenizer has at least one.
_TOKENIZER_CONFIGS = ("config.json", "tokenizer_config.json", "tokenizer.json")

logger = logging.getLogger(__name__)


@dataclass
class Backbone:
    """A causal language model and its tokenizer, both Hugging Face's own.

    Attributes:
        model: Hugging Face model.
        tokenizer: Hugging Face tokenizer.
        id: Hub id or path that the model was loaded from, or `embedded`.
        fingerprint: Hash of the weights, 16 hexadecimal digits (see `weights_fingerprint`); adapters record it.

    Examples:
        >>> from lorarec import Backbone
        >>> backbone = Backbone.from_pretrained("embedded")
        >>> backbone.id, len(backbone.fingerprint)
        ('embedded', 16)
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    id: str
    fingerprint: str

    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | Path = EMBEDDED,
        dtype: Dtype = "auto",
        device: str | None = None,
        quantization: Quantization | None = None,
        trust_remote_code: bool = False,
        check: bool = True,
        attn_implementation: AttentionImplementation | None = None,
    ) -> Self:
        """Load a causal language model and its tokenizer from safetensors or a GGUF file.

        When the weights are loaded for the first time on this machine, a few candidates are scored at once and one by
        one, to check that both give the same scores (`lorarec.scoring.require_exact`).

        Weights that are stored in 8-bit floats (DeepSeek's and Qwen's FP8 models) are dequantized, since an adapter's
        update would be lost in them. A GGUF file is dequantized once and cached (`unpacked_gguf`). Models that are
        stored quantized by other methods keep their weights, with the adapters beside them, or are refused by name
        (`quantization_arguments`).

        Args:
            model_id_or_path: `embedded`, path of a folder or of a GGUF file, or hub id.
            dtype: Data type of the weights: `auto`, `float32`, `bfloat16` or `float16`. `auto` is float32 on a CPU, and
                on an accelerator as stored, or bfloat16 for weights stored in float32 if the accelerator computes in
                it. The embedded backbone is in float32 everywhere.
            device: Torch device, or `auto` to spread the model by accelerate; the accelerator (CUDA, ROCm, MPS, XPU and
                others) if there is one by default.
            quantization: `4bit` or `8bit` through bitsandbytes (`pip install lorarec[quantized]`).
            trust_remote_code: Run Python code that comes with the model; otherwise such a model is refused.
            check: Refuse a model whose scores of many candidates at once are not exact. Pass False for a model that
                torch does not score.
            attn_implementation: `sdpa` or `eager`; None for `sdpa` where the model has it. Both are exact; others take
                no tree mask.

        Raises:
            LorarecError: If an argument is not one of the choices, the model is missing, has no safetensors, needs
                remote code, is quantized by a method that takes no adapters or cannot be scored exactly, or a library
                is missing.
        """
        name = str(model_id_or_path)
        return cls.from_config(
            BackboneConfig(name, dtype, device, quantization, attn_implementation, trust_remote_code), check
        )

    @classmethod
    def from_config(cls, config: BackboneConfig, check: bool = True) -> Self:
        """Load a language model as `from_pretrained` does, whose arguments are the fields of the options.

        Args:
            config: Options.
            check: As for `from_pretrained`.

        Raises:
            LorarecError: As for `from_pretrained`.
        """
        source, device = source_of(config.id), config.device or default_device()
        arguments: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": config.trust_remote_code}
        if config.attn_implementation is not None:
            arguments["attn_implementation"] = config.attn_implementation
        if device != "cpu":
            arguments["device_map"] = device
        try:
            tokenizer = load_tokenizer(source, config.trust_remote_code)
            stored = AutoConfig.from_pretrained(source, trust_remote_code=config.trust_remote_code)
            arguments["dtype"] = _dtype_on_device(config, stored, device)
            arguments |= quantization_arguments(config, stored)
            answer: Any = AutoModelForCausalLM.from_pretrained(
                source, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
            )
            model, loaded = answer
            _refuse_missing(config.id, loaded)
            if stored_method(stored) in DEQUANTIZED and arguments["dtype"] != "auto":
                model.to(arguments["dtype"])  # parameters that were not quantized are loaded as they are stored
        except LorarecError:
            raise
        except SafetensorError as error:
            raise LorarecError(
                f"backbone {config.id} cannot be loaded: its weights are truncated or corrupted ({error}): copy or "
                "download them again"
            ) from error
        except (OSError, ValueError, ImportError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
            raise LorarecError(f"backbone {config.id} cannot be loaded: {lines[0]}") from error
        if hasattr(model.config, "rescale_every"):
            # RWKV divides its weights in place for half precision; an adapter added to them would not be divided.
            model.config.rescale_every = 0
        keep_gradients(model)
        model.eval()
        backbone = cls(model, tokenizer, config.id, weights_fingerprint(model, source))
        if check:
            require_exact(model, backbone.fingerprint)
        return backbone

    @cached_property
    def base_model(self) -> str:
        """Name of the model in the `adapter_config.json` of its adapters, by which PEFT and Transformers load it.

        It is `id`, for the embedded model the path of its folder, and for a GGUF file the hub id or name of the model
        that the file was made from, as far as the file tells (see `original_model`), since the path of a file means
        nothing to others.
        """
        if self.id == EMBEDDED:
            return str(embedded_folder())
        return original_model(self.id) if is_gguf(self.id) else self.id

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload model",
    ) -> CommitInfo:
        """Upload the folder of the model, as it is stored, in one commit to the hub.

        Adapters of the embedded backbone or of a folder name the repository as their base model, so that PEFT loads
        them elsewhere (`Adapter.push_to_hub`).

        Args:
            repo_id: Hub id to write to, which is created if it does not exist.
            private: Visibility of a new repository; None for the owner's default.
            token: Access token; if None, that of HF_TOKEN or `hf auth login`.
            revision: Branch to commit to, which is created if it does not exist; None for the main branch.
            commit_message: First line of the commit's message.

        Returns:
            The commit, with its address and its hash.

        Raises:
            LorarecError: If the model is not in a folder on this machine, the user may not write to the repository, or
                the hub cannot be reached.
        """
        folder = Path(source_of(self.id))
        if not folder.is_dir():
            raise LorarecError(f"backbone {self.id} is not a folder here: adapters can name it by its hub id as it is")
        files = files_to_push(folder, FolderKind.BACKBONE)
        files.setdefault("README.md", CARD)
        return push_files(
            files,
            FolderKind.BACKBONE,
            repo_id,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
        )

    def token_limit(self, wanted: int) -> int:
        """Return the maximum length of a prompt with a branch: `wanted`, or the model's positions if they are fewer."""
        return min(wanted, plan_for(self.model).max_positions or wanted)

    def prompt_builder(self, config: PromptConfig) -> PromptBuilder:
        """Return a builder of prompts for this model, no longer than it has positions."""
        max_tokens = self.token_limit(config.max_tokens)
        return PromptBuilder(self.tokenizer, config.readout, config.template, max_tokens, config.max_title_tokens)

    def has_fingerprint(self, fingerprint: str) -> bool:
        """Return whether a recorded fingerprint, possibly of an earlier version, is that of this model's weights."""
        if fingerprint == self.fingerprint or fingerprint == fingerprint_of_files(source_of(self.id)):
            return True
        if fingerprint != fingerprint_of_first_rows(self.model, source_of(self.id)):
            return False
        logger.warning(
            "the fingerprint %s was made by an earlier version from a few weights: make sure that it belongs to %s",
            fingerprint,
            self.id,
        )
        return True


def _refuse_missing(name: str, loaded: Mapping[str, Any]) -> None:
    """Refuse a model some of whose weights are not in its files, which Transformers would draw at random.

    Args:
        name: Hub id or path of the model.
        loaded: What Transformers says about the weights that it has loaded.

    Raises:
        LorarecError: Weights are missing, or have other shapes than the configuration says.
    """
    missing = sorted(loaded["missing_keys"])
    mismatched = sorted(key for key, *_ in loaded["mismatched_keys"])
    if missing or mismatched:
        problem = f"have no {missing[0]}" if missing else f"have another shape of {mismatched[0]} than config.json says"
        raise LorarecError(f"backbone {name} cannot be loaded: its weights {problem}: copy or download it again")


def load_tokenizer(source: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder or hub id as its files declare it.

    For a Qwen2 model `AutoTokenizer` takes Qwen2's own class even if tokenizer_config.json names the generic class; the
    lower-casing of tokenizer.json would be lost then.

    Raises:
        LorarecError: The folder is not one of Transformers, the hub cannot be reached or has no such model, or the
            tokenizer has no vocabulary.
        OSError: The files cannot be read or downloaded.
        ValueError: The files hold no tokenizer.
    """
    if not Path(source).exists():
        require_model(source, "backbone")
    elif Path(source).is_dir() and not any((Path(source) / name).is_file() for name in _TOKENIZER_CONFIGS):
        raise LorarecError(f"{source} is not a Transformers folder (it has no config.json): give one, or a hub id")
    settings = cached_file(source, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False)
    if settings is not None and read_json(settings).get("tokenizer_class") in GENERIC_TOKENIZERS:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
    else:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    if not tokenizer.encode("yes", add_special_tokens=False):  # Transformers makes an empty one if there are no files
        raise LorarecError(f"{source} has no vocabulary of a tokenizer: add its files, such as tokenizer.json")
    return tokenizer


def hide_weights_progress() -> None:
    """Turn off the progress bar of transformers for loading weights in this process, but not those for downloads."""
    disable_progress_bar()  # also turns off those for downloads
    enable_progress_bars()


def embedded_folder() -> Path:
    """Return the path of the embedded backbone inside the package."""
    return Path(str(resources.files("lorarec.backbone"))) / EMBEDDED


def source_of(name: str) -> str:
    """Return the path or hub id from which Hugging Face's loaders and vLLM read a backbone.

    Raises:
        LorarecError: If the embedded backbone was removed from the installed package, or a GGUF file cannot be read.
    """
    if name != EMBEDDED:
        return str(unpacked_gguf(name)) if is_gguf(name) else name
    if not embedded_folder().is_dir():
        raise LorarecError(
            "the embedded backbone was removed from this installation: give the path or hub id of another model"
        )
    return str(embedded_folder())


def weights_dtype(dtype: Dtype, device: str, name: str) -> Any:
    """Return the torch dtype of a backbone's weights on a device, or `auto` for that of its files.

    Args:
        dtype: Data type by name, or `auto`.
        device: Torch device.
        name: `embedded`, path of a folder or of a GGUF file, or hub id.
    """
    if dtype == "auto":
        # Half precision is stored for its size; CPUs compute in float32.
        return torch.float32 if device == "cpu" or name == EMBEDDED else "auto"
    return getattr(torch, dtype)


def _dtype_on_device(config: BackboneConfig, stored: Any, device: str) -> Any:
    """Return the torch dtype of the weights, or `auto` for that of the files.

    Args:
        config: Options.
        stored: Transformers' configuration of the model.
        device: Torch device, or `auto`.
    """
    dtype = weights_dtype(config.dtype, device, config.id)
    kind = default_device() if device == "auto" else torch.device(device).type
    if dtype == "auto" and stored.get_text_config(decoder=True).dtype == torch.float32 and has_native_bf16(kind):
        return torch.bfloat16
    return dtype
