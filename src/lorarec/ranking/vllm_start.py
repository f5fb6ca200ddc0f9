"""Starting vLLM with a backbone: what it is told, and what is said when it cannot."""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any, get_args

from lorarec.backbone import Backbone, Dtype, source_of, weights_dtype
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, prompt_config

#: Tokens beyond the longest prompt, for lists of titles.
WRITTEN = 512
#: On a CPU: what keys and values are kept in, of which vLLM would take most of the memory (VLLM_CPU_KVCACHE_SPACE, in
#: GiB, goes before it); tokens in a block of them, since a prompt is shared by whole blocks; tokens of a step, since
#: there vLLM copies an adapter's matrices for each of them.
CPU = {"kv_cache_memory_bytes": 1 << 30, "block_size": 32, "max_num_batched_tokens": 512}


def require_vllm() -> None:
    """Check that vLLM is installed, without importing it.

    Raises:
        LorarecError: it is not.
    """
    if importlib.util.find_spec("vllm") is None:
        raise LorarecError(
            "engine vllm needs vLLM: install lorarec and vLLM into an environment of their own (`pip install vllm .` "
            "with a GPU; without one see docs/howto/vllm.md)"
        )


def start_vllm(
    backbone: Backbone, adapters: Sequence[Adapter], dtype: Dtype, trust_remote_code: bool, options: dict[str, Any]
) -> tuple[Any, Any, int]:
    """Start vLLM; arguments and errors are those of `VllmEngine`.

    Returns:
        The module, its `LLM`, and the longest sequence that it takes, in tokens.
    """
    require_vllm()
    # No messages among the figures, and nothing sent home.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        import vllm
        from vllm.platforms import current_platform
    except ImportError as error:
        raise LorarecError(f"vLLM is installed but cannot be loaded: {first_line(error)}") from error
    on_cpu = current_platform.is_cpu()
    longest = max(prompt_config(adapter).max_tokens for adapter in (None, *adapters)) + WRITTEN
    positions = getattr(backbone.model.config, "max_position_embeddings", None) or longest
    settings: dict[str, Any] = {
        "dtype": weights_dtype(dtype, "cpu" if on_cpu else "cuda", backbone.id),
        "trust_remote_code": trust_remote_code,
        "max_model_len": min(longest, positions),
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        **(CPU if on_cpu else {}),
        **(_lora_settings(adapters) if adapters else {}),
        **options,
    }
    try:
        llm = vllm.LLM(source_of(backbone.id), **settings)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise LorarecError(f"vLLM cannot run backbone {backbone.id}: {first_line(error)}") from error
    return vllm, llm, settings["max_model_len"]


def _lora_settings(adapters: Sequence[Adapter]) -> dict[str, Any]:
    from vllm.config.lora import MaxLoRARanks

    rank = max(max(adapter.ranks.values()) for adapter in adapters)
    ranks = [allowed for allowed in get_args(MaxLoRARanks) if allowed >= rank]
    if not ranks:
        raise LorarecError(f"vLLM takes adapters of rank {max(get_args(MaxLoRARanks))} at most, not {rank}")
    return {
        "enable_lora": True,
        "max_lora_rank": min(ranks),
        "max_loras": min(len(adapters), 8),
        "max_cpu_loras": len(adapters),
    }


def first_line(error: Exception) -> str:
    """Of a message, for one of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
