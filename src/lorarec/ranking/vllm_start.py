"""The start of vLLM with a backbone: its settings, and errors in one line."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from lorarec.backbone import Backbone, Dtype, source_of, weights_dtype
from lorarec.errors import LorarecError
from lorarec.io import JsonObject
from lorarec.lora import Adapter, prompt_config

#: Tokens beyond the longest prompt, for generated lists of titles.
GENERATED_TOKENS = 512
#: Settings on a CPU: the memory for keys and values, of which vLLM would take most by default (the environment variable
#: VLLM_CPU_KVCACHE_SPACE, in GiB, takes precedence); the tokens of a block, since prompts share whole blocks; and the
#: tokens of a step, since vLLM copies an adapter's matrices for each token there.
CPU_SETTINGS = {"kv_cache_memory_bytes": 1 << 30, "block_size": 32, "max_num_batched_tokens": 512}


def require_vllm() -> None:
    """Check that vLLM is installed, without importing it.

    Raises:
        LorarecError: vLLM is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise LorarecError(
            "engine vllm needs vLLM: install lorarec and vLLM into an environment of their own (`pip install vllm .` "
            "with a GPU; without one see docs/howto/engines.md)"
        )


def start_vllm(
    backbone: Backbone, adapters: Sequence[Adapter], dtype: Dtype, trust_remote_code: bool, options: Mapping[str, Any]
) -> tuple[Any, Any, int]:
    """Start vLLM.

    Args:
        backbone, adapters, dtype, trust_remote_code, options: As for `VllmEngine`.

    Returns:
        The module `vllm`, an `LLM` of it, and the maximum length of a sequence in tokens.

    Raises:
        LorarecError: As for `VllmEngine`.
    """
    # vLLM would otherwise print messages to stdout and report usage statistics.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        import vllm
        from vllm.platforms import current_platform
    except ImportError as error:
        raise LorarecError(f"vLLM is installed but cannot be loaded: {first_line(error)}") from error
    on_cpu = current_platform.is_cpu()
    longest = max(prompt_config(adapter).max_tokens for adapter in (None, *adapters)) + GENERATED_TOKENS
    positions = getattr(backbone.model.config, "max_position_embeddings", None) or longest
    settings: JsonObject = {
        "dtype": weights_dtype(dtype, "cpu" if on_cpu else "auto", backbone.id),
        "trust_remote_code": trust_remote_code,
        "max_model_len": min(longest, positions),
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        **(CPU_SETTINGS if on_cpu else {}),
        **(_lora_settings(adapters) if adapters else {}),
        **options,
    }
    try:
        llm = vllm.LLM(source_of(backbone.id), **settings)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise LorarecError(f"vLLM cannot run backbone {backbone.id}: {first_line(error)}") from error
    return vllm, llm, settings["max_model_len"]


def _lora_settings(adapters: Sequence[Adapter]) -> JsonObject:
    from vllm.config.lora import MaxLoRARanks

    rank = max(max(adapter.ranks.values()) for adapter in adapters)
    ranks = [allowed for allowed in get_args(MaxLoRARanks) if allowed >= rank]
    if not ranks:
        raise LorarecError(f"vLLM takes adapters of rank {max(get_args(MaxLoRARanks))} at most, got {rank}")
    return {
        "enable_lora": True,
        # By default vLLM 0.32 puts adapters on the output layer of some architectures, Llama's among them, whether they
        # adapt it or not, and then fails on the log-probabilities of prompts.
        "lora_target_modules": sorted(adapted_names(adapters)),
        "max_lora_rank": min(ranks),
        "max_loras": min(len(adapters), 8),
        "max_cpu_loras": len(adapters),
    }


def adapted_names(adapters: Sequence[Adapter]) -> set[str]:
    """Return the last parts of the names of the layers that adapters are on, such as `q_proj`."""
    return {layer.rpartition(".")[2] for adapter in adapters for layer in adapter.tensors}


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
